// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module rvs_ftp: switches rvs's FTP helper on, as the C module ip_vs_ftp does with that of ip_vs. What it does is all in
 * rvs.ko; this only has the ports, and is held by the control connections that it was there for.
 */
#include <linux/module.h>
#include <linux/moduleparam.h>

#include "shim.h"

static unsigned int ports_count = 1;
static unsigned short ports[RVS_APP_PORTS] = { 21 };
module_param_array(ports, ushort, &ports_count, 0444);
MODULE_PARM_DESC(ports, "Ports of FTP control connections");

/* The last that can fail: connections may hold the module as soon as it is registered. */
static int __init rvs_ftp_init(void)
{
	return rvs_app_register(THIS_MODULE, ports, ports_count);
}

static void __exit rvs_ftp_exit(void)
{
	rvs_app_unregister();
}

module_init(rvs_ftp_init);
module_exit(rvs_ftp_exit);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("The rvs authors");
MODULE_DESCRIPTION("FTP helper of rvs");
MODULE_ALIAS("ip_vs_ftp");
