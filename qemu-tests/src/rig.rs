// SPDX-License-Identifier: GPL-2.0-or-later

//! Crafted packets through the director, with what came out of it on either side.
//!
//! Clients and real servers are addresses that no kernel owns, so each packet of a conversation is
//! the scenario's own. An exchange ends with a *fence*: a packet of an unassigned protocol that the
//! director forwards plainly. All is done on one CPU, so what the director did with the packets
//! before it has happened when the fence arrives: a missing packet was dropped, without waiting for
//! it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use nix::sched::{sched_setaffinity, CpuSet};
use nix::unistd::Pid;

use crate::pkt::{Pkt, FENCE};
use crate::tap::{Frame, Tap};
use crate::topo::{mac, Family, Topo};
use crate::wait::patience;

/// From where packets are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// What an exchange made the director send.
#[derive(Debug, Default, Clone)]
pub struct Io {
    /// Frames that arrived on the servers' side.
    pub server: Vec<Frame>,
    /// Frames that arrived on the client's side.
    pub client: Vec<Frame>,
}

/// A test network with taps on both sides.
#[derive(Debug)]
pub struct Rig {
    pub topo: Topo,
    pub ctap: Tap,
    pub stap: Tap,
    fence: AtomicU32,
}

/// Keeps this process, and all threads it will start, on the first CPU.
pub fn one_cpu() -> Result<()> {
    let mut set = CpuSet::new();
    set.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("sched_setaffinity")
}

impl Rig {
    /// A client, a director and one network of crafted servers.
    pub fn new() -> Result<Self> {
        one_cpu()?;
        Self::around(Topo::new(1)?)
    }

    /// Taps on an existing network (its client and its first real server).
    pub fn around(topo: Topo) -> Result<Self> {
        let ctap = Tap::open(&topo.client, "eth0", mac(0, 2), mac(0, 1))?;
        let rs = topo.rs.first().context("no real server to tap")?;
        let stap = Tap::open(rs, "eth0", mac(1, 2), mac(1, 1))?;
        Ok(Self {
            topo,
            ctap,
            stap,
            fence: 0.into(),
        })
    }

    /// Runs `ipvsadm ARGS` in the director; it must succeed.
    pub fn ipvsadm(&self, args: &str) -> Result<String> {
        self.topo.ipvsadm(args)
    }

    /// Sends packets from one side and returns all that came out on both.
    pub fn exchange(&self, from: Side, pkts: &[Pkt]) -> Result<Io> {
        let raw: Vec<Vec<u8>> = pkts.iter().map(Pkt::bytes).collect();
        self.exchange_raw(from, &raw)
    }

    /// As [`Rig::exchange`] with packets given as bytes.
    pub fn exchange_raw(&self, from: Side, pkts: &[Vec<u8>]) -> Result<Io> {
        self.side(from).send_all(pkts)?;
        self.finish(from)
    }

    /// Ends an exchange: all that came out on both sides up to now.
    pub fn finish(&self, from: Side) -> Result<Io> {
        let mut io = Io::default();
        // There and back: the second fence follows whatever the first one overtook on the way to
        // the other side.
        let other = if from == Side::Client {
            Side::Server
        } else {
            Side::Client
        };
        self.pass_fence(from, &mut io)?;
        self.pass_fence(other, &mut io)?;
        Ok(io)
    }

    fn side(&self, side: Side) -> &Tap {
        match side {
            Side::Client => &self.ctap,
            Side::Server => &self.stap,
        }
    }

    fn pass_fence(&self, from: Side, io: &mut Io) -> Result<()> {
        let n = self.fence.fetch_add(1, Ordering::Relaxed);
        let (client, server) = (Family::V4.raw_client(0xffff), Family::V4.raw_rs(255 - 1));
        let (src, dst, tap) = match from {
            Side::Client => (client, server, &self.stap),
            Side::Server => (server, client, &self.ctap),
        };
        let fence = Pkt {
            body: n.to_be_bytes().to_vec(),
            ..Pkt::new(src, dst, FENCE)
        };
        self.side(from).send(&fence)?;
        loop {
            let Some(frame) = tap.recv(patience(5.0))? else {
                bail!("fence {n} from the {from:?} side got lost")
            };
            // Kernels announce their multicast memberships whenever they like.
            if frame.outgoing || frame.pkt.dst.is_multicast() {
                continue;
            }
            if frame.pkt.proto == FENCE {
                if frame.pkt.body == fence.body {
                    return Ok(());
                }
                continue;
            }
            match from {
                Side::Client => io.server.push(frame),
                Side::Server => io.client.push(frame),
            }
        }
    }

    /// Sends one packet from the client and expects exactly one at the servers and nothing back.
    pub fn forwarded(&self, pkt: &Pkt) -> Result<Pkt> {
        let io = self.exchange(Side::Client, std::slice::from_ref(pkt))?;
        io.one_at_server().with_context(|| format!("sent {pkt:?}"))
    }

    /// Sends one packet from the servers' side and expects exactly one at the client and nothing
    /// back.
    pub fn returned(&self, pkt: &Pkt) -> Result<Pkt> {
        let io = self.exchange(Side::Server, std::slice::from_ref(pkt))?;
        io.one_at_client().with_context(|| format!("sent {pkt:?}"))
    }

    /// Sends one packet that must vanish without any answer.
    pub fn dropped(&self, from: Side, pkt: &Pkt) -> Result<()> {
        let io = self.exchange(from, std::slice::from_ref(pkt))?;
        ensure!(
            io.server.is_empty() && io.client.is_empty(),
            "{pkt:?} was not dropped in silence: {io:#?}"
        );
        Ok(())
    }

    /// Sends one packet from the client; exactly one must come back to it and none reach the
    /// servers.
    pub fn answered(&self, pkt: &Pkt) -> Result<Pkt> {
        let io = self.exchange(Side::Client, std::slice::from_ref(pkt))?;
        io.one_at_client().with_context(|| format!("sent {pkt:?}"))
    }

    /// Throws away what is queued.
    pub fn drain(&self) -> Result<()> {
        self.ctap.drain()?;
        self.stap.drain()?;
        Ok(())
    }

    /// Waits `wait` for anything received on the client's side.
    pub fn client_recv(&self, wait: Duration) -> Result<Option<Frame>> {
        self.ctap.recv(wait)
    }
}

impl Io {
    /// The single packet on the servers' side, none on the client's.
    pub fn one_at_server(self) -> Result<Pkt> {
        ensure!(
            self.server.len() == 1 && self.client.is_empty(),
            "expected one packet at the servers, got {:#?} there and {:#?} at the client",
            self.server_pkts(),
            self.client_pkts()
        );
        Ok(self.server.into_iter().next().context("no frame")?.pkt)
    }

    /// The single packet on the client's side, none on the servers'.
    pub fn one_at_client(self) -> Result<Pkt> {
        ensure!(
            self.client.len() == 1 && self.server.is_empty(),
            "expected one packet at the client, got {:#?} there and {:#?} at the servers",
            self.client_pkts(),
            self.server_pkts()
        );
        Ok(self.client.into_iter().next().context("no frame")?.pkt)
    }

    pub fn server_pkts(&self) -> Vec<&Pkt> {
        self.server.iter().map(|f| &f.pkt).collect()
    }

    pub fn client_pkts(&self) -> Vec<&Pkt> {
        self.client.iter().map(|f| &f.pkt).collect()
    }
}
