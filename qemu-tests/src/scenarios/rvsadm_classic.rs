// SPDX-License-Identifier: GPL-2.0-or-later

//! rvsadm under the name of ipvsadm, beside ipvsadm: the same command lines, right and wrong, give the same output,
//! exit code and table.
//!
//! Proves part of checklist item 20: the commands of ipvsadm 1.31, by both programs.

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{ensure, Context, Result};
use nix::mount::{mount, MsFlags};

use crate::genl::{find, Attrs};
use crate::ipvs::{cmd, for_svc, svc, top, Ipvs};
use crate::modules;
use crate::ns::{Ns, Output};
use crate::scenario::{Cx, Peer, Scenario};
use crate::wait::{slow, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "rvsadm_classic",
    "rvsadm prints, does and returns what ipvsadm does",
    &[],
    run,
)
.partly(&[20])
.with_rvsadm()
.timeout(180.0);

/// What the schedulers that are asked for leave behind in the C module's world.
const C_SCHEDULERS: &[&str] = &[
    "ip_vs_sh",
    "ip_vs_mh",
    "ip_vs_dh",
    "ip_vs_sed",
    "ip_vs_nq",
    "ip_vs_fo",
    "ip_vs_ovf",
    "ip_vs_lblc",
    "ip_vs_lblcr",
    "ip_vs_twos",
    "ip_vs_pe_sip",
    "nf_conntrack_sip",
];

/// Each line is run by ipvsadm in one namespace and by rvsadm in another, then the tables are compared. `|` ends
/// a line of standard input, which begins after `<`.
const CHANGES: &str = "
-A -t 10.0.0.1:80
-A -t 10.0.0.1:80
-A -t 10.0.0.1:81 -s rr
-At 10.0.0.1:82 -s wrr
-At10.0.0.1:83 -slc
-A --tcp-service 10.0.0.1:84 --scheduler wlc
-A --tcp-service=10.0.0.1:85 --scheduler=wrr
--add-service -t 10.0.0.1:86
-A -t=10.0.0.1:87
-A -u 10.0.0.1:53 -s rr
-A --udp-service 10.0.0.1:54
-A --sctp-service 10.0.0.1:5060 -s rr
-A -t [2001:db8::1]:80 -s rr
-A -t [2001:db8::1]:443 -s wrr
-A -u [2001:db8::1]:53
-A -t 2001:db8::2
-A -t 2001:db8::2 -p
-A -f 1 -s rr
-A -f 2 -6 -s rr
-A --fwmark-service 3 --ipv6
-A -f 4294967295
-A -f 2147483648 -s rr
-A -f 0
-A -f -1
-A -f x
-A -f 4294967296
-A -f 1x
-A -f +5
-A -6 -f 6
-A -t 192.0.2.1:80 -s rr
-A -t 172.16.0.1:8080
-A -t 127.0.0.1:80 -s lc
-A -t 10.1:80
-A -t 0x0a000002.0:80
-A -t 012.1.1.1:80
-A -t 10.0.0.1:http
-A -t 10.0.0.9:http -s rr
-A -t 10.0.0.9:domain
-A -u 10.0.0.9:domain
-A -t 10.0.0.9:nosuchname
-A -t localhost:8000 -s rr
-A -t director.example.org:8000 -s rr
-A -t no.such.host.invalid:80
-A -t 10.0.0.1
-A -t 10.0.0.1:0
-A -t 10.0.0.10 -p
-A -t 10.0.0.11:0 -p 60
-A -t 10.0.0.1:65536
-A -t 10.0.0.1:-1
-A -t 10.0.0.1:
-A -t 80
-A -t :80
-A -t [2001:db8::3]
-A -t [2001:db8::3
-A -t [10.0.0.1]:80
-A -t [10.0.0.12]:80 -p
-A -t [10.0.0.12:80]:80
-A -t 2001:db8::1:80
-A -t x[2001:db8::1]:80
-A -t 10.0.0.1:80:80
-A
-A -s rr
-A -t
-A -t 10.0.0.13:80 -s
-A -t 10.0.0.13:80 -s nosuch
-A -t 10.0.0.13:80 -s sh
-A -t 10.0.0.14:80 -s sh -b sh-port
-A -t 10.0.0.15:80 -s sh -b sh-port,sh-fallback
-A -t 10.0.0.16:80 -s mh -b mh-port,mh-fallback
-A -t 10.0.0.16:81 -b mh-port -s mh
-A -t 10.0.0.16:82 -s mh -b flag-1,flag-2,flag-3
-A -t 10.0.0.17:80 -s rr -b flag-1
-A -t 10.0.0.17:81 -s rr -b flag-3
-A -t 10.0.0.17:82 -s rr --sched-flags flag-2
-A -t 10.0.0.17:83 -s rr -b sh-port
-A -t 10.0.0.17:84 -s sh -b mh-port
-A -t 10.0.0.17:85 -b sh-port
-A -t 10.0.0.17:86 -b flag-4
-A -t 10.0.0.17:87 -b flag-1,,flag-2
-A -t 10.0.0.17:89 -s mh -b sh-fallback
-A -t 10.0.0.18:80 -s dh
-A -t 10.0.0.18:81 -s sed
-A -t 10.0.0.18:82 -s nq
-A -t 10.0.0.18:83 -s fo
-A -t 10.0.0.18:84 -s ovf
-A -t 10.0.0.18:85 -s lblc
-A -t 10.0.0.18:86 -s lblcr
-A -t 10.0.0.19:80 -p
-A -t 10.0.0.19:81 -p 100
-A -t 10.0.0.19:82 -p100
-A -t 10.0.0.19:83 --persistent=100
-A -t 10.0.0.19:84 --persistent 100
-A -t 10.0.0.19:85 -p 0
-A -t 10.0.0.19:86 -p 2678400
-A -t 10.0.0.19:87 -p 2678401
-A -t 10.0.0.19:88 -p x
-A -t 10.0.0.19:89 -p -s rr
-A -p -t 10.0.0.19:90
-A -t 10.0.0.20:80 -p -M 255.255.255.0
-A -t 10.0.0.20:81 -M 255.255.0.0
-A -t 10.0.0.20:82 -p --netmask 255.255.255.255
-A -t 10.0.0.20:83 -p -M 24
-A -t 10.0.0.20:84 -p -M nosuch.invalid
-A -t 10.0.0.20:85 -p -M 0.0.0.0
-A -t [2001:db8::4]:80 -p -M 64
-A -t [2001:db8::4]:81 -p -M 0
-A -t [2001:db8::4]:82 -p -M 129
-A -t [2001:db8::4]:83 -p -M 128
-A -t [2001:db8::4]:84 -p -M 64x
-A -t [2001:db8::4]:85 -p -M ffff::
-A -M 64 -t [2001:db8::4]:86 -p
-A -M 255.255.255.0 -t 10.0.0.20:86 -p
-A -f 20 -p -M 255.255.255.0
-A -f 21 -6 -p -M 64
-A -t 10.0.0.21:80 -o
-A -u 10.0.0.21:80 -o
-A -u 10.0.0.21:81 --ops -s rr
-A -u 10.0.0.21:82 -o -p
-A -f 22 -o
-A -u 10.0.0.22:5060 --pe sip -p 60
-A -u 10.0.0.22:5061 --pe sip
-A -u 10.0.0.22:5062 --pe nosuch -p
-A -t 10.0.0.22:5063 --pe sip -p
-A -t 10.0.0.1:80 -t 10.0.0.1:81
-A -t 10.0.0.1:80 -u 10.0.0.1:80
-A -t 10.0.0.1:80 -f 1
-A -t 10.0.0.23:80 -s rr -s wrr
-A -t 10.0.0.23:80 -p -p
-A -t 10.0.0.23:80 -n
-A -t 10.0.0.23:80 -r 10.0.0.2
-A -t 10.0.0.23:80 -m
-A -t 10.0.0.23:80 -w 1
-A -t 10.0.0.23:80 extra
-A extra -t 10.0.0.23:80
-A -t 10.0.0.23:80 -E
-A -A -t 10.0.0.23:80
-AE -t 10.0.0.23:80
-A -t 10.0.0.23:80 --bogus
-A -t 10.0.0.23:80 -q
-A -t 10.0.0.23:80 --list
-A -- -t 10.0.0.23:80
-A --tcp 10.0.0.23:80
-A -t 10.0.0.23:80 --
-A -t 10.0.0.24:80 -- -s rr
-A --add-service
-A=t 10.0.0.24:80
--add-service=x -t 10.0.0.24:80
-A -tcp-service 10.0.0.24:80
-t 10.0.0.1:80 -A
extra -A -t 10.0.0.24:81
- -A -t 10.0.0.24:82
-E -t 10.0.0.1:80 -s rr
-E -t 10.0.0.1:80
-E -t 10.0.0.1:80 -p 200
-E -t 10.0.0.1:80
-E -t 10.0.0.1:999 -s rr
-E -t 10.0.0.1:80 -s nosuch
-E -f 1 -s wrr
-E -f 2 -s wrr
-E -f 2 -6 -s wrr
-E -t [2001:db8::1]:80 -s wrr -p 10 -M 48
-E
--edit-service --tcp-service 10.0.0.1:81 --scheduler lc
-a -t 10.0.0.1:80 -r 10.0.1.1:8080 -m
-a -t 10.0.0.1:80 -r 10.0.1.1:8080 -m
-a -t 10.0.0.1:80 -r 10.0.1.2 -m
-a -t 10.0.0.1:80 -r 10.0.1.3:http -m
-a -t 10.0.0.1:80 -r 10.0.1.4:81 -g
-a -t 10.0.0.1:80 -r 10.0.1.5:81 -i
-a -t 10.0.0.1:80 -r 10.0.1.6
-a -t 10.0.0.1:80 -r 10.0.1.7:81 --masquerading --weight 7
-a -t 10.0.0.1:80 -r 10.0.1.8:81 -mw9
-a -t 10.0.0.1:80 -r 10.0.1.9:81 -m -w 0
-a -t 10.0.0.1:80 -r 10.0.1.10:81 -m -w 65535
-a -t 10.0.0.1:80 -r 10.0.1.11:81 -m -w 65536
-a -t 10.0.0.1:80 -r 10.0.1.12:81 -m -w 2147483647
-a -t 10.0.0.1:80 -r 10.0.1.12:82 -m -w 2147483648
-a -t 10.0.0.1:80 -r 10.0.1.12:83 -m -w 4294967296
-a -t 10.0.0.1:80 -r 10.0.1.12:81 -m -w -1
-a -t 10.0.0.1:80 -r 10.0.1.13:81 -m -w x
-a -t 10.0.0.1:80 -r 10.0.1.14:81 -m -x 100 -y 50
-a -t 10.0.0.1:80 -r 10.0.1.15:81 -m -x 50 -y 100
-a -t 10.0.0.1:80 -r 10.0.1.16:81 -m --u-threshold 65535 --l-threshold 65535
-a -t 10.0.0.1:80 -r 10.0.1.17:81 -m -x 65536
-a -t 10.0.0.1:80 -r 10.0.1.18:81 -m -x 2147483647
-a -t 10.0.0.1:80 -r 10.0.1.19:81 -m -x 2147483648
-a -t 10.0.0.1:80 -r 10.0.1.20:81 -m -x -1
-a -t 10.0.0.1:80 -r 10.0.1.21:81 -m -y x
-a -t 10.0.0.1:80 -r 10.0.1.21:82 -m -x 2147483647 -y 2147483647
-a -t 10.0.0.1:80 -r 10.0.1.21:83 -m -y 2147483648
-a -t 10.0.0.1:80 -r 0.0.0.0:80 -m
-a -t 10.0.0.1:80 -r 224.0.0.1:80 -m
-a -t 10.0.0.1:80 -r 255.255.255.255:80 -m
-a -t 10.0.0.1:80 -r 127.0.0.1:80 -m
-a -t 10.0.0.1:80 -r 10.0.1.22:0 -m
-a -t 10.0.0.1:80 -r 80 -m
-a -t 10.0.0.1:80 -r 10.0.1.23:99999 -m
-a -t 10.0.0.1:80 -r nosuch.invalid -m
-a -t 10.0.0.1:80 -r localhost:8081 -m
-a -t 10.0.0.1:80 -m
-a -r 10.0.1.1:80 -m
-a -r 10.0.1.24:82 -t 10.0.0.1:80 -m
-a -r 10.0.1.25 -t 10.0.0.1:80 -m
-a -t 10.0.0.1:999 -r 10.0.1.1:80 -m
-a -t 10.0.0.1:80 -r 10.0.1.26:80 -m -g
-a -t 10.0.0.1:80 -r 10.0.1.26:80 -m -i
-a -t 10.0.0.1:80 -r 10.0.1.26:80 -mm
-a -t 10.0.0.1:80 -r 10.0.1.26:80 -m -s rr
-a -t 10.0.0.1:80 -r 10.0.1.26:80 -m -p
-a -t 10.0.0.1:80 -r [2001:db8::11]:80 -m
-a -t 10.0.0.1:80 -r [2001:db8::11]:80 -i
-a -t [2001:db8::1]:80 -r 10.0.1.1:80 -m
-a -t [2001:db8::1]:80 -r 10.0.1.1:80 -i
-a -t [2001:db8::1]:80 -r [2001:db8::11]:8080 -m
-a -t [2001:db8::1]:80 -r [2001:db8::12] -m -w 4
-a -t [2001:db8::1]:80 -r 2001:db8::13 -m
-a -t [2001:db8::1]:80 -r [2001:db8::14]:80 -m -w 3
-a -t [2001:db8::1]:80 -r [fe80::1]:80 -m
-a -t [2001:db8::1]:80 -r [ff02::1]:80 -m
-a -t [2001:db8::1]:80 -r [::]:80 -m
-a -f 1 -r 10.0.2.1:80 -m
-a -f 1 -r 10.0.2.2 -m
-a -f 1 -r 10.0.2.3:99 -g
-a -f 1 -r 10.0.2.4 -i
-a -f 2 -6 -r [2001:db8::21]:80 -m
-a -f 2 -6 -r [2001:db8::22] -m
-a -f 2 -r 10.0.2.1 -m
-a -f 99 -r 10.0.2.1 -m
-a -f 2147483648 -r 10.0.2.5:80 -m
-a -u 10.0.0.1:53 -r 10.0.3.1:53 -m
-a -u 10.0.0.1:53 -r 10.0.3.2:5353 -m -w 2
-a --sctp-service 10.0.0.1:5060 -r 10.0.3.3:5060 -m
-a -t 192.0.2.1:80 -r 192.168.1.1:80 -m
-a -t 192.0.2.1:80 -r 10.1.1.1:80 -m
-a -t 192.0.2.1:80 -r 100.64.0.1:80 -m
-a -t 192.0.2.1:80 -r 10.1.1.1:79 -m
-a -t 192.0.2.1:80 -r 223.255.255.254:80 -m
-a -t 10.0.0.1:81 -r 10.0.4.1 -i --tun-type ipip
-a -t 10.0.0.1:81 -r 10.0.4.2 -i --tun-type gue --tun-port 6080
-a -t 10.0.0.1:81 -r 10.0.4.3 -i --tun-type gue --tun-port 6080 --tun-nocsum
-a -t 10.0.0.1:81 -r 10.0.4.4 -i --tun-type gue --tun-port 6080 --tun-csum
-a -t 10.0.0.1:81 -r 10.0.4.5 -i --tun-type gue --tun-port 6080 --tun-remcsum
-a -t 10.0.0.1:81 -r 10.0.4.6 -i --tun-type gue --tun-port 6080 --tun-csum --tun-remcsum
-a -t 10.0.0.1:81 -r 10.0.4.6 -i --tun-type gue
-a -t 10.0.0.1:81 -r 10.0.4.6 -i --tun-type gue --tun-port 0
-a -t 10.0.0.1:81 -r 10.0.4.6 -i --tun-type gue --tun-port 65536
-a -t 10.0.0.1:81 -r 10.0.4.7 -i --tun-type gre
-a -t 10.0.0.1:81 -r 10.0.4.8 -i --tun-type gre --tun-csum
-a -t 10.0.0.1:81 -r 10.0.4.9 -i --tun-type gre --tun-port 99
-a -t 10.0.0.1:81 -r 10.0.4.9 -i --tun-type gre --tun-remcsum
-a -t 10.0.0.1:81 -r 10.0.4.9 -i --tun-type vxlan
-a -t 10.0.0.1:81 -r 10.0.4.9 -i --tun-port 99
-a -t 10.0.0.1:81 -r 10.0.4.9 -i --tun-csum
-a -t 10.0.0.1:81 -r 10.0.4.9 -m --tun-type gre
-a -t 10.0.0.1:81 -r 10.0.4.9 --tun-type ipip
-a -t 10.0.0.1:81 -r 10.0.4.9 -m --tun-csum
-a -t 10.0.0.1:81 -r 10.0.4.10 -i --tun-type gue --tun-port=65535
-a -t 10.0.0.1:81 -r 10.0.4.1 -m --tun-info
-e -t 10.0.0.1:80 -r 10.0.1.1:8080 -m -w 5
-e -t 10.0.0.1:80 -r 10.0.1.1:8080 -m
-e -t 10.0.0.1:80 -r 10.0.1.1:8081 -m
-e -t 10.0.0.1:80 -r 10.0.1.7:81 -g
-e -t 10.0.0.1:80 -r 10.0.1.6 -w 3
-e -t 10.0.0.1:80 -r 10.0.1.2 -m -x 7 -y 3
-e -t 10.0.0.1:999 -r 10.0.1.1 -m
--edit-server --tcp-service 10.0.0.1:80 --real-server 10.0.1.8:81 --masquerading
-e -t [2001:db8::1]:80 -r [2001:db8::11]:8080 -m -w 9
-d -t 10.0.0.1:80 -r 10.0.1.1:8080
-d -t 10.0.0.1:80 -r 10.0.1.1:8080
-d -t 10.0.0.1:80 -r 10.0.1.2
-d -t 10.0.0.1:999 -r 10.0.1.2
-d -t 10.0.0.1:80 -r 10.0.1.7:81 -m
-d -t 10.0.0.1:80
-d -t [2001:db8::1]:80 -r [2001:db8::12]
--delete-server -f 1 --real-server 10.0.2.1:80
-D -t 10.0.0.1:83
-D -t 10.0.0.1:83
-D -t 10.0.0.1:84 -s rr
-D -f 2
-D -f 2 -6
-D
--delete-service -u 10.0.0.1:54
-Z
-Z -t 10.0.0.1:80
-Z -t 10.0.0.1:999
-Z -t 0.0.0.0:0
-Z -f 1
-Z -n
--zero
--set 900 120 300
--set 0 0 0
--set 1 2
--set 1 2 3 4
--set
--set x 1 1
--set 1 -1 1
--set 2678400 2678400 2678400
--set 2678401 1 1
--set 900 120 300 -n
--set=1 2 3
--set 901 121 301
--start-daemon
--start-daemon master
--start-daemon primary
--start-daemon master --mcast-interface d0
--start-daemon master --mcast-interface d0
--start-daemon backup --mcast-interface d0 --syncid 5
--stop-daemon backup
--stop-daemon backup
--stop-daemon master
--stop-daemon neither
--stop-daemon
--start-daemon master --mcast-interface nosuch0
--start-daemon=master --mcast-interface=d0 --syncid=255
--stop-daemon=master --syncid=255
--start-daemon master --mcast-interface d0 --syncid 256
--start-daemon master --mcast-interface d0 --syncid -1
--start-daemon backup --mcast-interface d0 --mcast-group 224.0.0.99 --mcast-port 9000 --mcast-ttl 3 --sync-maxlen 1400
--stop-daemon backup --mcast-interface d0
--stop-daemon backup
--start-daemon backup --mcast-interface d0 --mcast-group 10.0.0.1
--start-daemon backup --mcast-interface d0 --mcast-group x
--start-daemon backup --mcast-interface d0 --mcast-group 2001:db8::1
--start-daemon backup --mcast-interface d0 --mcast-group 224.0.0.300
--start-daemon backup --mcast-interface d0 --mcast-port 0
--start-daemon backup --mcast-interface d0 --mcast-port 65536
--start-daemon backup --mcast-interface d0 --mcast-ttl 0
--start-daemon backup --mcast-interface d0 --mcast-ttl 256
--start-daemon backup --mcast-interface d0 --sync-maxlen 0
--start-daemon backup --mcast-interface d0 --sync-maxlen 65507
--start-daemon backup --mcast-interface d0 --sync-maxlen 65508
--stop-daemon backup
--start-daemon backup -t 10.0.0.1:80
-R < -A -t 10.7.0.1:80 -s rr | -a -t 10.7.0.1:80 -r 10.7.1.1:80 -m | -a -t 10.7.0.1:80 -r 10.7.1.2:80 -m -w 2
-R < ipvsadm -A -t 10.7.0.2:80 -s rr |  |    -a    -t 10.7.0.2:80   -r 10.7.1.1:80 -m   |
-R <
-R < |
--restore < -A -t 10.7.0.1:80 -s rr | -A -t 10.7.0.3:80 -s rr
-R < -A -t 10.7.0.4:80 -s rr | -A -t 10.7.0.4:80 -s rr
-R < -A -t 10.7.0.5:80 -s rr | -A -t bad | -A -t 10.7.0.6:80 -s rr
-R < -A -t 10.7.0.7:80 -s rr | --bogus | -A -t 10.7.0.8:80 -s rr
-R < -A -t 10.7.0.9:80 --bogus | -A -t 10.7.0.10:80 -s rr
-R < -A -t 10.7.0.9:80 --bogus
-R < -R
-R < -A -t 10.7.0.11:80 | -Ln -t 10.7.0.11:80 | -D -t 10.7.0.11:80 | --set 902 122 302
-R < -a -t 10.7.0.1:80 -r 10.7.1.3:80 -m | -e -t 10.7.0.1:80 -r 10.7.1.3:80 -m -w 5 | -d -t 10.7.0.1:80 -r 10.7.1.1:80 | -E -t 10.7.0.1:80 -s wrr | -Z
-R -n < -C
-R < -v
-S -t 10.0.0.1:80
-S extra
-C -n
-C -t 10.0.0.1:80
";

/// Run by both programs in the same namespace, in several states of its table.
const TABLES: &str = "
-L
-Ln
-ln
--list --numeric
-Ln --stats
-L --stats
-Ln --stats --exact
-Ln --rate
-Ln --rate -X
-Ln --thresholds
-L --thresholds
-Ln --persistent-conn
-L --tun-info
-Ln --tun-info
-Ln --stats --rate
-Ln --rate --thresholds --persistent-conn
-Ln --nosort
-Ln --sort
-Ln --nosort --stats
-Ln --exact
-Ln -t 10.0.0.1:80
-L -t 10.0.0.1:http
-L -t 10.0.0.1:80 --stats
-Ln -t 10.0.0.1:80 --thresholds
-Ln -u 10.0.0.1:53
-Ln -f 1
-Ln -f 2
-Ln -f 2 -6
-Ln -t [2001:db8::1]:80
-Ln --timeout
-L --daemon
-Lc
-Lnc
-lcn
-Lnc --persistent-conn
-Lc --sort
-S
-Sn
--save --numeric
";

/// What the counters and connections of the table are printed by.
const MOVING: &str = "
-Ln
-Ln --stats
-Ln --stats --exact
-Ln --rate
-Ln --persistent-conn
-Ln --stats -u 10.0.0.1:53
-Lc
-Lnc
-Lnc --persistent-conn
";

/// The same, once.
const OTHERS: &str = "
-l
-L -n
--list
-nL
-n
-L --rate
-Ln --sort --sort
-Ln -t 10.0.0.1:999
-Ln -t 10.0.0.1
-Ln -t bad
-L --timeout
-Ln --daemon
-L --timeout --daemon
-L --timeout -c
-L --timeout --stats
-L --timeout --persistent-conn
-L --daemon --rate
-L -c --stats
-L -c -t 10.0.0.1:80
-L --syncid 1
-L --syncid x
-L -s rr
-L -r 10.0.0.1
-L --mcast-interface d0
-L -p
-L -n -n
-L --stats --stats
-L extra
-L --bogus
-L=n
-L==n
-Ln=x
--list=n
-LS
-L -S
-S -n
--save
-S --stats
-S --nosort
-S -c
-h
--help
-v
--version
-hv
-vL
-h extra
-
--
-q
--bogus
extra
-X
--exact
--numeric
--stats
";

/// The lines of a list; where starting two programs takes long, every fifth of them.
fn some(lines: &str) -> impl Iterator<Item = &str> {
    let each = if slow() > 1.0 { 5 } else { 1 };
    lines.lines().filter(|l| !l.is_empty()).step_by(each)
}

/// Starts a program under ipvsadm's name.
fn start(ns: &Ns, program: &Path, args: &[&str], stdin: &str) -> Result<Child> {
    ns.run(|| {
        let mut child = Command::new(program)
            .arg0("ipvsadm")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| program.display().to_string())?;
        if let Some(mut pipe) = child.stdin.take() {
            // One that doesn't read it ends with a code that is compared.
            let _ = pipe.write_all(stdin.as_bytes());
        }
        Ok(child)
    })
}

fn finish(child: Child) -> Result<Output> {
    let output = child.wait_with_output()?;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn tool(ns: &Ns, program: &Path, args: &[&str], stdin: &str) -> Result<Output> {
    finish(start(ns, program, args, stdin)?)
}

/// All that can be configured, as the kernel tells it, without what counts.
fn table(ipvs: &Ipvs) -> Result<Vec<String>> {
    let config = |nest: &Attrs| nest.without(svc::STATS).without(svc::STATS64);
    let mut table = Vec::new();
    for message in ipvs.dump(cmd::GET_SERVICE, &Attrs::new())?.ok()?.msgs {
        let nest = find(&message.attrs, top::SERVICE).context("no service")?;
        let service = config(&Attrs(nest.to_vec()));
        let mut text = format!("{:02x?}", service.0);
        let dests = ipvs.dump(cmd::GET_DEST, &for_svc(&service))?.ok()?.msgs;
        for message in dests {
            let nest = find(&message.attrs, top::DEST).context("no destination")?;
            text += &format!("\n {:02x?}", config(&Attrs(nest.to_vec())).0);
        }
        table.push(text);
    }
    table.sort();
    for message in ipvs.dump(cmd::GET_DAEMON, &Attrs::new())?.ok()?.msgs {
        table.push(format!("{:02x?}", message.attrs));
    }
    table.push(format!("{:?}", ipvs.config()?));
    Ok(table)
}

/// The time that is left to connections passes between one program and the other.
fn without_expiry(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| match line.get(4..9) {
            Some(time) if time.as_bytes().get(2) == Some(&b':') => line.replacen(time, "**:**", 1),
            _ => line.to_owned(),
        })
        .collect()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

struct Pair<'a> {
    ipvsadm: &'a Path,
    rvsadm: &'a Path,
    /// ipvsadm's namespace and rvsadm's.
    ns: [Ns; 2],
    ipvs: [Ipvs; 2],
    lines: usize,
    wrong: Vec<String>,
    /// Lines to which both complain, differently.
    texts: usize,
}

impl Pair<'_> {
    fn compare(&mut self, line: &str, theirs: &Output, ours: &Output) {
        self.lines += 1;
        let connections = theirs.stdout.starts_with("IPVS connection entries");
        let same = if connections {
            without_expiry(&theirs.stdout) == without_expiry(&ours.stdout)
        } else {
            theirs.stdout == ours.stdout
        };
        // An error is said where ipvsadm says one. In other words perhaps: it doesn't know the kernel's reason.
        let said = theirs.stderr.is_empty() == ours.stderr.is_empty();
        if theirs.code != ours.code || !same || !said {
            let mut lines = String::new();
            let (theirs_lines, ours_lines) = (theirs.stdout.lines(), ours.stdout.lines());
            for (number, (a, b)) in theirs_lines
                .zip(ours_lines)
                .enumerate()
                .filter(|(_, (a, b))| a != b)
            {
                lines += &format!("  line {number}\n    {a}\n    {b}\n");
            }
            self.differ(format!(
                "`{line}`\n  ipvsadm {:?}, {} bytes, {:?}\n  rvsadm {:?}, {} bytes, {:?}\n{lines}",
                theirs.code,
                theirs.stdout.len(),
                theirs.stderr,
                ours.code,
                ours.stdout.len(),
                ours.stderr
            ));
        } else if theirs.stderr != ours.stderr {
            self.texts += 1;
            println!(
                "`{line}`: ipvsadm {:?}, rvsadm {:?}",
                theirs.stderr, ours.stderr
            );
        }
    }

    fn differ(&mut self, what: String) {
        println!("DIFFERENT {what}");
        self.wrong.push(what);
    }

    /// Each program in its namespace, at the same time.
    fn change(&mut self, line: &str) -> Result<()> {
        let (args, stdin) = line.split_once('<').unwrap_or((line, ""));
        let args: Vec<&str> = args.split_whitespace().collect();
        let stdin = stdin.replace('|', "\n");
        let theirs = start(&self.ns[0], self.ipvsadm, &args, &stdin)?;
        let ours = start(&self.ns[1], self.rvsadm, &args, &stdin)?;
        self.compare(line, &finish(theirs)?, &finish(ours)?);
        let tables = [table(&self.ipvs[0])?, table(&self.ipvs[1])?];
        if tables[0] != tables[1] {
            let only = |a: usize, b: usize| -> Vec<&String> {
                tables[a]
                    .iter()
                    .filter(|t| !tables[b].contains(t))
                    .collect()
            };
            let what = format!(
                "`{line}` made {:#?}\nwith ipvsadm, {:#?}\nwith rvsadm",
                only(0, 1),
                only(1, 0)
            );
            self.differ(what);
            // What follows shall not differ for this.
            let saved = self.saved()?;
            for ns in &self.ns {
                tool(ns, self.ipvsadm, &["-C"], "")?;
                tool(ns, self.ipvsadm, &["-R"], &saved)?;
            }
        }
        Ok(())
    }

    /// What ipvsadm saves and can restore: firewall marks above 2^31 it prints as negative numbers, and refuses those.
    fn saved(&self) -> Result<String> {
        let saved = tool(&self.ns[0], self.ipvsadm, &["-S", "-n"], "")?.stdout;
        let fine = saved.split_inclusive('\n');
        Ok(fine.filter(|l| !l.contains(" -f -")).collect())
    }

    /// Both programs in the same namespace, at the same time. Where rates are shown, which change every two seconds, the kernel may
    /// have changed them between the one program and the other: then both are started again.
    fn list(&mut self, args: &[&str]) -> Result<()> {
        let mut attempts = if args.contains(&"--rate") { 5 } else { 1 };
        loop {
            let theirs = start(&self.ns[0], self.ipvsadm, args, "")?;
            let ours = start(&self.ns[0], self.rvsadm, args, "")?;
            let (theirs, ours) = (finish(theirs)?, finish(ours)?);
            attempts -= 1;
            if attempts == 0 || theirs.stdout == ours.stdout {
                self.compare(&format!("{args:?}"), &theirs, &ours);
                return Ok(());
            }
        }
    }

    fn lists(&mut self, lines: &str) -> Result<()> {
        for line in some(lines) {
            self.list(&line.split_whitespace().collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// Some connections, and counters that have come to rest.
fn traffic(pair: &Pair<'_>) -> Result<()> {
    let [ns, _] = &pair.ns;
    for port in 20001..20004 {
        ns.run(|| -> Result<()> {
            let socket = UdpSocket::bind(("10.0.0.1", port))?;
            // What it goes to never answers, and nobody says so either: its link-layer address is known.
            socket.send_to(b"a packet", "10.0.0.1:53")?;
            Ok(())
        })?;
    }
    let mut before = String::new();
    until_true("the counters come to rest", 15.0, || {
        let now = tool(
            ns,
            pair.ipvsadm,
            &["-Ln", "--stats", "-u", "10.0.0.1:53"],
            "",
        )?
        .stdout
            + &tool(
                ns,
                pair.ipvsadm,
                &["-Ln", "--rate", "-u", "10.0.0.1:53"],
                "",
            )?
            .stdout;
        let same = now == before && now.contains(" 3 ");
        before = now;
        crate::wait::pass(0.3);
        Ok(same)
    })
}

/// Names come from these lines and nowhere else: a name server that doesn't answer takes its time.
fn own_names() -> Result<()> {
    let folder = Path::new("/run/names");
    fs::create_dir_all(folder)?;
    for (file, text) in [
        ("hosts", HOSTS),
        ("nsswitch.conf", "hosts: files\nservices: files\n"),
    ] {
        let ours = folder.join(file);
        fs::write(&ours, text)?;
        // The scenario's mounts are its own.
        mount(
            Some(&ours),
            &Path::new("/etc").join(file),
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .with_context(|| format!("/etc/{file}"))?;
    }
    Ok(())
}

const HOSTS: &str = "127.0.0.1 localhost
10.0.0.1 director.example.org
10.0.1.6 a-real-server-with-a-long-name.example.org
10.0.1.14 short
2001:db8::1 director6.example.org
2001:db8::11 real6.example.org
";

fn run(cx: &Cx) -> Result<()> {
    own_names()?;
    let rvsadm = cx.rvsadm.as_deref().context("no rvsadm was built")?;
    let ns = [Ns::new("ipvsadm")?, Ns::new("rvsadm")?];
    for ns in &ns {
        ns.ip(
            "link add d0 type veth peer name d1\nlink set d0 up\nlink set d1 up\naddr add 10.0.0.1/8 dev d0\n\
             neigh add 10.0.3.1 lladdr 02:00:00:00:03:01 dev d0\nneigh add 10.0.3.2 lladdr 02:00:00:00:03:02 dev d0\n",
        )?;
    }
    let ipvs = [Ipvs::open(&ns[0])?, Ipvs::open(&ns[1])?];
    let mut pair = Pair {
        ipvsadm: Path::new("ipvsadm"),
        rvsadm,
        ns,
        ipvs,
        lines: 0,
        wrong: Vec::new(),
        texts: 0,
    };
    pair.lists(TABLES)?;
    for line in some(CHANGES) {
        pair.change(line)?;
    }
    // Without which there is no traffic.
    pair.change("-A -u 10.0.0.1:53 -s rr")?;
    pair.change("-a -u 10.0.0.1:53 -r 10.0.3.1:53 -m")?;
    pair.lists(TABLES)?;
    pair.lists(OTHERS)?;
    // No arguments at all, and some that a blank can't separate.
    for args in [&[][..], &[""], &["-L", ""], &["-A", "-t", ""]] {
        pair.list(args)?;
    }
    // ipvsadm can't restore what it saves of this one.
    pair.change("-A -t 10.0.0.16:83 -s mh -b flag-3")?;
    pair.list(&["-Ln", "-t", "10.0.0.16:83"])?;
    pair.change("-D -t 10.0.0.16:83")?;
    traffic(&pair)?;
    pair.lists(MOVING)?;

    // What either saves, the other restores.
    let saved = pair.saved()?;
    pair.change("-C")?;
    for ns in &pair.ns {
        let restored = tool(ns, rvsadm, &["-R"], &saved)?;
        ensure!(restored.code == Some(0), "{restored:?}");
        // ipvsadm's order isn't one: it changes with the kernel's. And while the table still gets its size, a service may come
        // twice.
        let mut again = String::new();
        until_true("all is restored", 5.0, || {
            again = tool(ns, pair.ipvsadm, &["-S", "-n"], "")?.stdout;
            Ok(sorted(&saved) == sorted(&again))
        })
        .with_context(|| format!("saved {saved}, restored {again}"))?;
    }
    pair.change("-C")?;

    println!(
        "{} command lines, {} with an error in other words",
        pair.lines, pair.texts
    );
    ensure!(slow() > 1.0 || pair.lines >= 450, "{} lines", pair.lines);
    ensure!(
        pair.wrong.is_empty(),
        "{} differences:\n{}",
        pair.wrong.len(),
        pair.wrong.join("\n")
    );
    drop(pair);
    if cx.peer == Peer::C {
        modules::unload(C_SCHEDULERS)?;
    }
    Ok(())
}
