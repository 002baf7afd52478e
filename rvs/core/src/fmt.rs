// SPDX-License-Identifier: GPL-2.0-only

//! The rows of `/proc/net/ip_vs*`, byte for byte as C prints them.
//!
//! Each row is a struct of plain values that implements [`Display`]; each includes its newline.
//! Headers are constants. ipvsadm and many scripts parse these files.

use core::fmt::{
    Display,
    Formatter,
    Result,
    Write, //
};

use crate::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    estimate::{
        Counters,
        Shown, //
    },
    proto::ProtoName,
    uapi::{
        FwdMethod,
        VERSION, //
    },
};

/// A row of the files over tables, which may be very long: written down here, then shown as a whole.
type Line = Text<192>;

/// The three header lines of `/proc/net/ip_vs`.
#[derive(Clone, Copy, Debug)]
pub struct ServicesHeader {
    /// Buckets of the connection table; zero while there is none.
    pub conn_tab_size: u32,
}

impl Display for ServicesHeader {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (major, minor, patch) = VERSION;
        write!(
            f,
            "IP Virtual Server version {}.{}.{} (size={})\n\
             Prot LocalAddress:Port Scheduler Flags\n  \
             -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n",
            major, minor, patch, self.conn_tab_size
        )
    }
}

/// What a service is known by.
#[derive(Clone, Copy, Debug)]
pub enum ServiceId<'a> {
    /// Protocol, address and port.
    Addr {
        /// Address family.
        family: Family,
        /// IP protocol number; netlink lets it be any 16-bit number.
        protocol: u16,
        /// Virtual address.
        addr: &'a Addr,
        /// Virtual port, in memory order.
        port: Be16,
    },
    /// Firewall mark.
    Fwmark(u32),
}

/// Persistence of a service, as `/proc/net/ip_vs` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Persistent {
    /// Timeout in jiffies.
    pub timeout: u32,
    /// The netmask as the service holds it: see [`Addr::masked`]. For IPv6 the file shows the prefix
    /// length with its bytes reversed, on little-endian machines.
    pub netmask: u32,
}

/// A service row of `/proc/net/ip_vs`.
#[derive(Clone, Copy, Debug)]
pub struct ServiceRow<'a> {
    /// Which service.
    pub id: ServiceId<'a>,
    /// Scheduler name, or `none`.
    pub scheduler: &'a str,
    /// Whether every packet is scheduled by itself. Not shown for IPv6.
    pub one_packet: bool,
    /// Persistence, if the service has any.
    pub persistent: Option<Persistent>,
}

impl Display for ServiceRow<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut line = Line::EMPTY;
        let mut shows_ops = true;
        match self.id {
            ServiceId::Addr {
                family,
                protocol,
                addr,
                port,
            } => {
                line.protocol(protocol, 0);
                line.put(b"  ");
                line.endpoint(family, addr, port);
                shows_ops = family == Family::V4;
            }
            ServiceId::Fwmark(mark) => {
                line.put(b"FWM  ");
                line.hex::<8>(mark, UPPER);
            }
        }
        line.put(b" ");
        line.put(self.scheduler.as_bytes());
        line.put(b" ");
        if shows_ops && self.one_packet {
            line.put(b"ops ");
        }
        // IPv4 rows have another space there.
        if matches!(self.id, ServiceId::Addr { .. }) && shows_ops {
            line.put(b" ");
        }
        if let Some(p) = self.persistent {
            line.put(b"persistent ");
            // C prints the timeout with %d.
            line.decimal((p.timeout as i32).into(), 0, false);
            line.put(b" ");
            line.hex::<8>(u32::from_be(p.netmask), UPPER);
        }
        line.put(b"\n");
        line.show(f)
    }
}

/// A destination row of `/proc/net/ip_vs`.
#[derive(Clone, Copy, Debug)]
pub struct DestRow<'a> {
    /// Address family.
    pub family: Family,
    /// Address.
    pub addr: &'a Addr,
    /// Port, in memory order.
    pub port: Be16,
    /// Connection flags, of which the forwarding method is shown.
    pub conn_flags: u32,
    /// Weight.
    pub weight: i32,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
}

impl Display for DestRow<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut line = Line::EMPTY;
        line.put(b"  -> ");
        line.endpoint(self.family, self.addr, self.port);
        line.put(b"      ");
        line.left(FwdMethod::name_of(self.conn_flags).as_bytes(), 7);
        line.put(b" ");
        line.decimal(self.weight.into(), 6, false);
        line.put(b" ");
        line.decimal((self.active as i32).into(), 10, false);
        line.put(b" ");
        line.decimal((self.inactive as i32).into(), 10, false);
        line.put(b"\n");
        line.show(f)
    }
}

/// The header line of `/proc/net/ip_vs_conn`.
pub const CONNS_HEADER: &str =
    "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n";

/// The header line of `/proc/net/ip_vs_conn_sync`.
pub const CONNS_SYNC_HEADER: &str =
    "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n";

/// What the rows of a connection in both files have in common.
#[derive(Clone, Copy, Debug)]
pub struct Conn<'a> {
    /// Address family of client and virtual service.
    pub family: Family,
    /// IP protocol number.
    pub protocol: u8,
    /// Client address.
    pub caddr: &'a Addr,
    /// Client port, in memory order.
    pub cport: Be16,
    /// Virtual address; the fwmark of a fwmark service's template.
    pub vaddr: &'a Addr,
    /// Virtual port, in memory order.
    pub vport: Be16,
    /// Address family of the destination.
    pub dest_family: Family,
    /// Destination address.
    pub daddr: &'a Addr,
    /// Destination port, in memory order.
    pub dport: Be16,
    /// State name: see [`crate::proto::state_name`].
    pub state: &'a str,
    /// Whole seconds until the timer: see [`crate::timeout::Deadline::secs_left`].
    pub expires: u32,
}

impl Conn<'_> {
    /// All columns up to the state, and the space behind it.
    fn line(&self) -> Line {
        let mut line = Line::EMPTY;
        line.protocol(self.protocol.into(), 3);
        for (family, addr, port) in [
            (self.family, self.caddr, self.cport),
            (self.family, self.vaddr, self.vport),
            (self.dest_family, self.daddr, self.dport),
        ] {
            line.put(b" ");
            line.addr(family, addr);
            line.put(b" ");
            line.port(port);
        }
        line.put(b" ");
        line.left(self.state.as_bytes(), 11);
        line.put(b" ");
        line
    }
}

/// A row of `/proc/net/ip_vs_conn`.
#[derive(Clone, Copy, Debug)]
pub struct ConnRow<'a, Data> {
    /// The connection.
    pub conn: Conn<'a>,
    /// Name and data of its persistence engine.
    pub pe: Option<(&'a str, Data)>,
}

/// Of a connection without persistence engine.
impl<'a> ConnRow<'a, &'a str> {
    /// The row of `conn`.
    pub const fn new(conn: Conn<'a>) -> Self {
        ConnRow { conn, pe: None }
    }
}

impl<Data: Display> Display for ConnRow<'_, Data> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut line = self.conn.line();
        line.decimal(self.conn.expires.into(), 7, true);
        let Some((name, data)) = &self.pe else {
            line.put(b"\n");
            return line.show(f);
        };
        line.show(f)?;
        writeln!(f, " {} {}", name, data)
    }
}

/// A row of `/proc/net/ip_vs_conn_sync`.
#[derive(Clone, Copy, Debug)]
pub struct ConnSyncRow<'a> {
    /// The connection.
    pub conn: Conn<'a>,
    /// Whether the sync daemon made it.
    pub from_sync: bool,
}

impl Display for ConnSyncRow<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut line = self.conn.line();
        line.put(if self.from_sync {
            b"SYNC   "
        } else {
            b"LOCAL  "
        });
        line.decimal(self.conn.expires.into(), 7, true);
        line.put(b"\n");
        line.show(f)
    }
}

/// Five numbers in the columns of the statistics files, without newline.
struct Columns([u64; 5]);

impl Display for Columns {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let [a, b, c, d, e] = self.0;
        write!(f, "{:8X} {:8X} {:8X} {:16X} {:16X}", a, b, c, d, e)
    }
}

/// The whole of `/proc/net/ip_vs_stats`.
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// Counters.
    pub total: Counters,
    /// Rates.
    pub rates: Shown,
}

impl Display for Stats {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(
            f,
            "   Total Incoming Outgoing         Incoming         Outgoing\n   \
             Conns  Packets  Packets            Bytes            Bytes\n\
             {}\n\n \
             Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n\
             {}\n",
            Columns(self.total.all()),
            Columns(self.rates.all()),
        )
    }
}

/// The header lines of `/proc/net/ip_vs_stats_percpu`.
pub const PERCPU_HEADER: &str = concat!(
    "       Total Incoming Outgoing         Incoming         Outgoing\n",
    "CPU    Conns  Packets  Packets            Bytes            Bytes\n",
);

/// A row of `/proc/net/ip_vs_stats_percpu`.
#[derive(Clone, Copy, Debug)]
pub struct PercpuRow {
    /// The CPU's number.
    pub cpu: u32,
    /// Its counters, never zeroed.
    pub counters: Counters,
}

impl Display for PercpuRow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "{:3X} {}", self.cpu, Columns(self.counters.all()))
    }
}

/// The lines of `/proc/net/ip_vs_stats_percpu` after the CPUs.
#[derive(Clone, Copy, Debug)]
pub struct PercpuTotals {
    /// Counters.
    pub total: Counters,
    /// Rates.
    pub rates: Shown,
}

impl Display for PercpuTotals {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(
            f,
            "  ~ {}\n\n     \
             Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n    \
             {}\n",
            Columns(self.total.all()),
            Columns(self.rates.all()),
        )
    }
}

/// The header line of `/proc/net/ip_vs_app`; a helper's rows follow.
pub const APPS_HEADER: &str = "prot port    usecnt name\n";

/// A row of `/proc/net/ip_vs_app`, which is FTP's: C `ip_vs_app_seq_show()`.
#[derive(Clone, Copy, Debug)]
pub struct AppRow {
    /// The control connections' port, host order.
    pub port: u16,
    /// How many of them there are.
    pub uses: i32,
}

impl Display for AppRow {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(
            f,
            "TCP  {:<7} {:<6} ftp              ",
            self.port, self.uses
        )
    }
}

/// How many chains of a table hold no node, one, two and so on; the last number is that of seven or more.
pub type Census = [u32; 8];

/// A hash table as `/proc/net/ip_vs_status` shows it.
#[derive(Clone, Copy, Debug)]
pub struct TableStatus {
    /// Buckets, a power of two; zero while there is no table.
    pub size: u32,
    /// The load factor that the size was chosen with.
    pub lfactor: i32,
    /// The chains' lengths; not shown if there is nothing in the table.
    pub census: Option<Census>,
}

impl TableStatus {
    /// No table.
    pub const NONE: Self = TableStatus {
        size: 0,
        lfactor: 0,
        census: None,
    };

    fn show(&self, what: &str, f: &mut Formatter<'_>) -> Result {
        let bits = self.size.checked_ilog2().unwrap_or(0);
        let (size, lfactor) = (self.size, self.lfactor);
        writeln!(
            f,
            "{what} buckets:\t{size} ({bits} bits, lfactor {lfactor})"
        )?;
        let Some([empty, used @ ..]) = self.census else {
            return Ok(());
        };
        let used_sum = used.iter().fold(0_u32, |sum, n| sum.wrapping_add(*n));
        let all = used_sum.wrapping_add(empty);
        writeln!(
            f,
            "{what} buckets empty:\t{empty} ({}%)",
            percent(empty, all)
        )?;
        for (len, n) in (1..8_u32).zip(used) {
            if n != 0 {
                writeln!(
                    f,
                    "{what} buckets len-{len}:\t{n} ({}%)",
                    percent(n, used_sum)
                )?;
            }
        }
        Ok(())
    }
}

/// `part` of `whole` in percent, rounded down.
const fn percent(part: u32, whole: u32) -> u64 {
    let times = (part as u64).saturating_mul(100);
    match times.checked_div(whole as u64) {
        Some(percent) => percent,
        None => times,
    }
}

/// The whole of `/proc/net/ip_vs_status`.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Connections.
    pub conns: i64,
    /// Their table.
    pub conn_table: TableStatus,
    /// Services of both families.
    pub services: u32,
    /// Their table.
    pub service_table: TableStatus,
    /// Workers that estimate rates.
    pub est_slots: u32,
    /// How many there may be.
    pub est_slots_max: u32,
    /// How many estimators one look may take; zero: any number.
    pub est_chain_max: u32,
    /// How many estimators a worker may have; zero: any number.
    pub est_per_slot: u32,
}

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "Conns:\t{}", self.conns)?;
        self.conn_table.show("Conn", f)?;
        writeln!(f, "Services:\t{}", self.services)?;
        self.service_table.show("Service", f)?;
        write!(
            f,
            "Stats thread slots:\t{} (max {})\n\
             Stats chain max len:\t{}\n\
             Stats thread ests:\t{}\n",
            self.est_slots, self.est_slots_max, self.est_chain_max, self.est_per_slot
        )
    }
}

/// A short text in a buffer of its own. What does not fit is cut off.
#[derive(Clone, Copy, Debug)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    const EMPTY: Self = Text {
        bytes: [0; N],
        len: 0,
    };

    /// Writes `text` down.
    pub fn new(text: impl Display) -> Self {
        let mut this = Self::EMPTY;
        // Writing cannot fail, only what is displayed could.
        let _ = write!(this, "{text}");
        this
    }

    /// The text.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Shows the text elsewhere.
    fn show(&self, f: &mut Formatter<'_>) -> Result {
        // What was cut off may have been cut in the middle of a character.
        f.write_str(core::str::from_utf8(self.bytes()).unwrap_or_default())
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            if room.len() == bytes.len() {
                room.copy_from_slice(bytes);
                self.len = end;
            }
            return;
        }
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        for (to, from) in Iterator::zip(room.iter_mut(), bytes) {
            *to = *from;
        }
        self.len = N;
    }

    /// Adds `bytes`, and spaces up to `width`.
    fn left(&mut self, bytes: &[u8], width: usize) {
        self.put(bytes);
        self.spaces(width.saturating_sub(bytes.len()));
    }

    fn spaces(&mut self, n: usize) {
        const SPACES: [u8; 16] = [b' '; 16];

        self.put(SPACES.get(..n).unwrap_or(&SPACES));
    }

    /// Adds `D` hexadecimal digits, those of `digits`.
    #[inline]
    fn hex<const D: usize>(&mut self, value: u32, digits: &[u8; 16]) {
        let mut out = [0; D];
        let mut rest = value;
        for place in out.iter_mut().rev() {
            *place = digits.get((rest & 15) as usize).copied().unwrap_or(b'?');
            rest >>= 4;
        }
        self.put(&out);
    }

    /// Adds a number, on the left or the right of `width` places.
    fn decimal(&mut self, value: i64, width: usize, on_the_right: bool) {
        let mut digits = [0; 20];
        let mut rest = value.unsigned_abs();
        let mut used = 0_usize;
        for place in digits.iter_mut().rev() {
            if rest == 0 && used != 0 {
                if value < 0 {
                    *place = b'-';
                    used = used.saturating_add(1);
                }
                break;
            }
            *place = b'0' | (rest % 10) as u8;
            rest /= 10;
            used = used.saturating_add(1);
        }
        let (_, digits) = digits.split_at(digits.len().saturating_sub(used));
        if on_the_right {
            self.spaces(width.saturating_sub(used));
            self.put(digits);
        } else {
            self.left(digits, width);
        }
    }

    /// Adds an address: see [`Hex`].
    fn addr(&mut self, family: Family, addr: &Addr) {
        match family {
            Family::V4 => self.hex::<8>(addr.v4_host(), UPPER),
            Family::V6 => {
                let mut colon: &[u8] = &[];
                for word in addr.0 {
                    let word = u32::from_be(word);
                    self.put(colon);
                    self.hex::<4>(word >> 16, LOWER);
                    self.put(b":");
                    self.hex::<4>(word, LOWER);
                    colon = b":";
                }
            }
        }
    }

    fn port(&mut self, port: Be16) {
        self.hex::<4>(u16::from_be(port).into(), UPPER);
    }

    /// Adds address and port: the address in brackets if it is IPv6.
    fn endpoint(&mut self, family: Family, addr: &Addr, port: Be16) {
        let (open, close): (&[u8], &[u8]) = match family {
            Family::V4 => (b"", b":"),
            Family::V6 => (b"[", b"]:"),
        };
        self.put(open);
        self.addr(family, addr);
        self.put(close);
        self.port(port);
    }

    /// Adds the name of a protocol, and spaces up to `width`.
    fn protocol(&mut self, protocol: u16, width: usize) {
        match ProtoName(protocol).known() {
            Some(name) => self.left(name.as_bytes(), width),
            None => {
                // Longer than any column, so that padding does not matter.
                self.put(b"IP_");
                self.decimal(protocol.into(), 0, false);
            }
        }
    }
}

const UPPER: &[u8; 16] = b"0123456789ABCDEF";
const LOWER: &[u8; 16] = b"0123456789abcdef";

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

/// The text of sockopt `IP_VS_SO_GET_VERSION`, without NUL.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// Buckets of the connection table.
    pub conn_tab_size: u32,
}

impl Display for Version {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (major, minor, patch) = VERSION;
        write!(
            f,
            "IP Virtual Server version {}.{}.{} (size={})",
            major, minor, patch, self.conn_tab_size
        )
    }
}

/// A service as C names it in log lines; C `ip_vs_scheduler_err()`.
///
/// ```
/// use rvs_core::{addr::{Addr, Family}, fmt::{ServiceId, ServiceName}};
///
/// let vip = Addr::from_slice(Family::V4, &[10, 0, 0, 1]).unwrap();
/// let id = ServiceId::Addr { family: Family::V4, protocol: 6, addr: &vip, port: 80_u16.to_be() };
/// assert_eq!(ServiceName(id).to_string(), "TCP 10.0.0.1:80");
/// assert_eq!(ServiceName(ServiceId::Fwmark(26)).to_string(), "FWM 26 0x0000001A");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ServiceName<'a>(pub ServiceId<'a>);

impl Display for ServiceName<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            ServiceId::Addr {
                family,
                protocol,
                addr,
                port,
            } => {
                let name = ProtoName(protocol);
                let addr = crate::addr::Pretty(family, addr);
                let port = u16::from_be(port);
                match family {
                    Family::V4 => write!(f, "{} {}:{}", name, addr, port),
                    Family::V6 => write!(f, "{} [{}]:{}", name, addr, port),
                }
            }
            ServiceId::Fwmark(mark) => write!(f, "FWM {} 0x{:08X}", mark, mark),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv6Addr;
    use std::string::ToString;

    fn v4(bytes: [u8; 4]) -> Addr {
        Addr::v4(u32::from_ne_bytes(bytes))
    }

    fn v6(text: &str) -> Addr {
        Addr::from_bytes(text.parse::<Ipv6Addr>().unwrap().octets())
    }

    #[test]
    fn addresses() {
        let mut line = Line::EMPTY;
        line.addr(Family::V6, &v6("2001:db8::ab:1"));
        line.put(b" ");
        line.addr(Family::V4, &v4([10, 0, 0, 171]));
        assert_eq!(
            line.bytes(),
            b"2001:0db8:0000:0000:0000:0000:00ab:0001 0A0000AB"
        );
    }

    #[test]
    fn numbers() {
        for (value, width, on_the_right, want) in [
            (0, 0, false, "0"),
            (0, 3, false, "0  "),
            (-7, 4, false, "-7  "),
            (-70, 2, true, "-70"),
            (1_234, 7, true, "   1234"),
            (i64::MAX, 0, true, "9223372036854775807"),
            (i64::MIN, 0, true, "-9223372036854775808"),
        ] {
            let mut line = Line::EMPTY;
            line.decimal(value, width, on_the_right);
            assert_eq!(line.bytes(), want.as_bytes());
        }
    }

    #[test]
    fn services_header() {
        assert_eq!(
            ServicesHeader { conn_tab_size: 256 }.to_string(),
            "IP Virtual Server version 1.2.1 (size=256)\n\
             Prot LocalAddress:Port Scheduler Flags\n\
             \x20 -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
        );
        assert_eq!(
            Version { conn_tab_size: 0 }.to_string(),
            "IP Virtual Server version 1.2.1 (size=0)"
        );
    }

    fn service<'a>(family: Family, protocol: u16, addr: &'a Addr) -> ServiceRow<'a> {
        ServiceRow {
            id: ServiceId::Addr {
                family,
                protocol,
                addr,
                port: 80_u16.to_be(),
            },
            scheduler: "wlc",
            one_packet: false,
            persistent: None,
        }
    }

    #[test]
    fn service_rows() {
        let vip = v4([192, 0, 2, 1]);
        let row = service(Family::V4, 6, &vip);
        assert_eq!(row.to_string(), "TCP  C0000201:0050 wlc  \n");
        let ops = ServiceRow {
            one_packet: true,
            ..service(Family::V4, 17, &vip)
        };
        assert_eq!(ops.to_string(), "UDP  C0000201:0050 wlc ops  \n");
        // 300 seconds at 250 Hz, 255.255.255.0.
        let persistent = Some(Persistent {
            timeout: 75_000,
            netmask: 0xffff_ff00_u32.to_be(),
        });
        let row = ServiceRow { persistent, ..row };
        assert_eq!(
            row.to_string(),
            "TCP  C0000201:0050 wlc  persistent 75000 FFFFFF00\n"
        );
        let row = ServiceRow { persistent, ..ops };
        assert_eq!(
            row.to_string(),
            "UDP  C0000201:0050 wlc ops  persistent 75000 FFFFFF00\n"
        );
        let row = service(Family::V4, 300, &vip);
        assert_eq!(row.to_string(), "IP_300  C0000201:0050 wlc  \n");
    }

    #[test]
    fn service_rows_v6() {
        let vip = v6("2001:db8::1");
        let row = service(Family::V6, 132, &vip);
        assert_eq!(
            row.to_string(),
            "SCTP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0050 wlc \n"
        );
        // One-packet scheduling is not shown; the prefix length has its bytes reversed.
        let row = ServiceRow {
            one_packet: true,
            persistent: Some(Persistent {
                timeout: 75_000,
                netmask: 64,
            }),
            ..row
        };
        let mask = if cfg!(target_endian = "little") {
            "40000000"
        } else {
            "00000040"
        };
        assert_eq!(
            row.to_string(),
            std::format!(
                "SCTP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0050 wlc persistent 75000 {mask}\n"
            )
        );
    }

    #[test]
    fn service_rows_fwmark() {
        let row = ServiceRow {
            id: ServiceId::Fwmark(0x2a),
            scheduler: "none",
            one_packet: false,
            persistent: None,
        };
        assert_eq!(row.to_string(), "FWM  0000002A none \n");
        let row = ServiceRow {
            one_packet: true,
            ..row
        };
        assert_eq!(row.to_string(), "FWM  0000002A none ops \n");
        let row = ServiceRow {
            persistent: Some(Persistent {
                timeout: u32::MAX,
                netmask: u32::MAX,
            }),
            ..row
        };
        assert_eq!(
            row.to_string(),
            "FWM  0000002A none ops persistent -1 FFFFFFFF\n"
        );
    }

    #[test]
    fn dest_rows() {
        let rs = v4([10, 0, 0, 1]);
        let row = DestRow {
            family: Family::V4,
            addr: &rs,
            port: 8080_u16.to_be(),
            conn_flags: 0x100,
            weight: 1,
            active: 2,
            inactive: 30,
        };
        assert_eq!(
            row.to_string(),
            "  -> 0A000001:1F90      Masq    1      2          30        \n"
        );
        for (flags, name) in [
            (0x181, "Local  "),
            (0x182, "Tunnel "),
            (0x183, "Route  "),
            (4, "Masq   "),
            (7, "Masq   "),
        ] {
            let row = DestRow {
                conn_flags: flags,
                ..row
            };
            assert_eq!(
                row.to_string(),
                std::format!("  -> 0A000001:1F90      {name} 1      2          30        \n")
            );
        }
        let rs = v6("fd00::1");
        let row = DestRow {
            family: Family::V6,
            addr: &rs,
            weight: 1_000_000,
            active: 12_345_678,
            ..row
        };
        assert_eq!(
            row.to_string(),
            "  -> [fd00:0000:0000:0000:0000:0000:0000:0001]:1F90      Masq    1000000 12345678   \
             30        \n"
        );
    }

    #[test]
    fn conn_rows() {
        let (client, vip, rs) = (v4([10, 0, 0, 1]), v4([192, 0, 2, 1]), v4([10, 1, 0, 7]));
        let conn = Conn {
            family: Family::V4,
            protocol: 6,
            caddr: &client,
            cport: 12345_u16.to_be(),
            vaddr: &vip,
            vport: 80_u16.to_be(),
            dest_family: Family::V4,
            daddr: &rs,
            dport: 8080_u16.to_be(),
            state: "ESTABLISHED",
            expires: 899,
        };
        assert_eq!(
            CONNS_HEADER,
            "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
        );
        assert_eq!(
            ConnRow::new(conn).to_string(),
            "TCP 0A000001 3039 C0000201 0050 0A010007 1F90 ESTABLISHED     899\n"
        );
        let row = ConnRow {
            conn: Conn {
                state: "NONE",
                protocol: 0,
                ..conn
            },
            pe: Some(("sip", "call@host")),
        };
        assert_eq!(
            row.to_string(),
            "IP  0A000001 3039 C0000201 0050 0A010007 1F90 NONE            899 sip call@host\n"
        );

        assert_eq!(
            CONNS_SYNC_HEADER,
            "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n"
        );
        let row = |from_sync| ConnSyncRow { conn, from_sync };
        assert_eq!(
            row(false).to_string(),
            "TCP 0A000001 3039 C0000201 0050 0A010007 1F90 ESTABLISHED LOCAL      899\n"
        );
        assert_eq!(
            row(true).to_string(),
            "TCP 0A000001 3039 C0000201 0050 0A010007 1F90 ESTABLISHED SYNC       899\n"
        );

        // IPv6 through a tunnel to an IPv4 destination.
        let (client, vip) = (v6("2001:db8::1"), v6("2001:db8::2"));
        let row = ConnRow::new(Conn {
            family: Family::V6,
            protocol: 17,
            caddr: &client,
            vaddr: &vip,
            state: "UDP",
            expires: 12_345_678,
            ..conn
        });
        assert_eq!(
            row.to_string(),
            "UDP 2001:0db8:0000:0000:0000:0000:0000:0001 3039 \
             2001:0db8:0000:0000:0000:0000:0000:0002 0050 0A010007 1F90 UDP         12345678\n"
        );
    }

    const TOTAL: Counters = Counters {
        conns: 0x1,
        inpkts: 0xab,
        outpkts: 0xcdef,
        inbytes: 0x1234_5678_9abc,
        outbytes: u64::MAX,
    };

    const RATES: Shown = Shown {
        cps: 1,
        inpps: 2,
        outpps: 3,
        inbps: 0x1_0000_0000,
        outbps: 0xff,
    };

    #[test]
    fn stats() {
        let stats = Stats {
            total: TOTAL,
            rates: RATES,
        };
        let want = "   Total Incoming Outgoing         Incoming         Outgoing
   Conns  Packets  Packets            Bytes            Bytes
       1       AB     CDEF     123456789ABC FFFFFFFFFFFFFFFF

 Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s
       1        2        3        100000000               FF
";
        assert_eq!(stats.to_string(), want);
        // Wider than its column: the row grows.
        let wide = Columns([u64::MAX, 0, 0, 0, 0]).to_string();
        assert_eq!(wide.len(), 8 + 8 + 1 + 8 + 1 + 8 + 1 + 16 + 1 + 16);
    }

    #[test]
    fn stats_percpu() {
        let mut text = PERCPU_HEADER.to_string();
        for cpu in [0, 26] {
            text += &PercpuRow {
                cpu,
                counters: TOTAL,
            }
            .to_string();
        }
        text += &PercpuTotals {
            total: TOTAL,
            rates: RATES,
        }
        .to_string();
        let want = "       Total Incoming Outgoing         Incoming         Outgoing
CPU    Conns  Packets  Packets            Bytes            Bytes
  0        1       AB     CDEF     123456789ABC FFFFFFFFFFFFFFFF
 1A        1       AB     CDEF     123456789ABC FFFFFFFFFFFFFFFF
  ~        1       AB     CDEF     123456789ABC FFFFFFFFFFFFFFFF

     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s
           1        2        3        100000000               FF
";
        assert_eq!(text, want);
    }

    #[test]
    fn status() {
        let status = Status {
            conns: 0,
            conn_table: TableStatus::NONE,
            services: 0,
            service_table: TableStatus::NONE,
            est_slots: 1,
            est_slots_max: 8,
            est_chain_max: 2,
            est_per_slot: 2 * 48 * 50,
        };
        let want = "Conns:\t0
Conn buckets:\t0 (0 bits, lfactor 0)
Services:\t0
Service buckets:\t0 (0 bits, lfactor 0)
Stats thread slots:\t1 (max 8)
Stats chain max len:\t2
Stats thread ests:\t4800
";
        assert_eq!(status.to_string(), want);
        let full = Status {
            conns: 12,
            conn_table: TableStatus {
                size: 256,
                lfactor: -4,
                census: Some([240, 10, 5, 0, 0, 0, 0, 1]),
            },
            services: 1,
            service_table: TableStatus {
                size: 16,
                lfactor: -2,
                census: Some([15, 1, 0, 0, 0, 0, 0, 0]),
            },
            ..status
        };
        let want = "Conns:\t12
Conn buckets:\t256 (8 bits, lfactor -4)
Conn buckets empty:\t240 (93%)
Conn buckets len-1:\t10 (62%)
Conn buckets len-2:\t5 (31%)
Conn buckets len-7:\t1 (6%)
Services:\t1
Service buckets:\t16 (4 bits, lfactor -2)
Service buckets empty:\t15 (93%)
Service buckets len-1:\t1 (100%)
Stats thread slots:\t1 (max 8)
Stats chain max len:\t2
Stats thread ests:\t4800
";
        assert_eq!(full.to_string(), want);
        // Everything gone between the count and the look.
        let gone = TableStatus {
            census: Some([0; 8]),
            ..full.conn_table
        };
        let text = Status {
            conn_table: gone,
            ..full
        }
        .to_string();
        assert!(text.contains("Conn buckets empty:\t0 (0%)\nServices"));
    }

    #[test]
    fn short_texts() {
        let version = Text::<64>::new(Version { conn_tab_size: 7 });
        assert_eq!(version.bytes(), b"IP Virtual Server version 1.2.1 (size=7)");
        assert_eq!(Text::<4>::new("longer").bytes(), b"long");
        assert_eq!(Text::<0>::new("longer").bytes(), b"");
    }

    #[test]
    fn names_for_the_log() {
        let vip = v6("2001:db8::1");
        let id = ServiceId::Addr {
            family: Family::V6,
            protocol: 17,
            addr: &vip,
            port: 53_u16.to_be(),
        };
        assert_eq!(ServiceName(id).to_string(), "UDP [2001:db8::1]:53");
    }
}
