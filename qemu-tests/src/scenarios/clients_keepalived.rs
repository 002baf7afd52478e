// SPDX-License-Identifier: GPL-2.0-or-later

//! keepalived as the client: it makes a service, checks the real servers by TCP_CHECK and by HTTP_GET, takes a dead one
//! out and back in, and removes everything at its end.
//!
//! Proves checklist items 2, 3 and 13 (what keepalived uses of them).

use anyhow::Result;

use super::clients::{health, real, vip, Program, Site};
use crate::scenario::{Cx, Scenario};

pub const SCENARIO: Scenario = Scenario::new(
    "clients_keepalived",
    "keepalived takes a dead server out and back in",
    &[],
    run,
)
.partly(&[2, 3]);

/// How it is started.
pub const LINE: &str =
    "keepalived --dont-fork --log-console --log-detail --check --use-file /run/keepalived.conf \
     --pid /run/keepalived.pid --checkers_pid /run/checkers.pid";

pub fn config(check: &str) -> String {
    let server = |n| {
        let addr = real(n);
        format!(
            "  real_server {} {} {{\n    weight {n}\n    {check}\n  }}\n",
            addr.ip(),
            addr.port()
        )
    };
    format!(
        "global_defs {{\n  router_id test\n}}\n\
         virtual_server {} {} {{\n  delay_loop 0.2\n  lb_algo wrr\n  lb_kind NAT\n  protocol TCP\n{}{}}}\n",
        vip().ip(),
        vip().port(),
        server(1),
        server(2)
    )
}

fn run(_cx: &Cx) -> Result<()> {
    let mut site = Site::new()?;
    for check in [
        "TCP_CHECK {\n      connect_timeout 1\n      retry 1\n      delay_before_retry 0.1\n    }",
        "HTTP_GET {\n      url {\n        path /\n        status_code 200\n      }\n      connect_timeout 1\n      \
         retry 1\n      delay_before_retry 0.1\n    }",
    ] {
        let name = check.split(' ').next().unwrap_or_default();
        println!("{name}");
        std::fs::write("/run/keepalived.conf", config(check))?;
        let program = Program::start(&site.topo.director, name, LINE)?;
        health(&mut site, program)?;
    }
    Ok(())
}
