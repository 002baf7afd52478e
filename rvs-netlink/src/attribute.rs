// SPDX-License-Identifier: MIT OR Apache-2.0

//! What all attributes share: how values are laid out, and the table macro that makes an attribute type.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, Nla, NlaBuffer, NlasIterator, Parseable,
};

use crate::service::AddressFamily;

/// The most bytes that the value of one netlink attribute can have: its length field has 16 bits and counts the header.
pub const MAX_VALUE_LEN: usize = u16::MAX as usize - 4;

/// Why a message can't be written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The value of an attribute is longer than [`MAX_VALUE_LEN`].
    TooLong {
        /// The attribute's name, as `service attribute SchedName`.
        attribute: String,
        /// The value's length in bytes.
        len: usize,
    },
    /// A text has a NUL byte, which would end it early.
    Nul {
        /// The attribute's name.
        attribute: String,
    },
    /// The message is longer than its 32-bit length field can say.
    MessageTooLong,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { attribute, len } => {
                write!(
                    f,
                    "{attribute} has {len} bytes, at most {MAX_VALUE_LEN} fit"
                )
            }
            Self::Nul { attribute } => write!(f, "{attribute} contains a NUL byte"),
            Self::MessageTooLong => f.write_str("the message is longer than 4 GiB"),
        }
    }
}

impl std::error::Error for EncodeError {}

/// An attribute that this crate has no name for, kept as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The type with its flag bits (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
    pub kind: u16,
    /// The value without header and padding.
    pub value: Vec<u8>,
}

impl Unknown {
    pub(crate) fn parse(buf: &NlaBuffer<&[u8]>) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: DefaultNla::parse(buf)?.kind(),
            value: buf.value().to_vec(),
        })
    }
}

/// How a value of type `T` is laid out in an attribute.
pub(crate) trait Codec<T> {
    /// Bytes of the value, at most [`MAX_VALUE_LEN`].
    fn len(value: &T) -> usize;
    /// Writes exactly [`Codec::len`] bytes.
    fn emit(value: &T, out: &mut [u8]);
    /// Reads a value; the error says what lengths would have been right.
    fn parse(bytes: &[u8]) -> Result<T, DecodeError>;
    /// What can't be written.
    fn check(_value: &T, _name: &dyn Fn() -> String) -> Result<(), EncodeError> {
        Ok(())
    }
}

/// Reads a value of exactly `N` bytes.
pub(crate) fn exact<const N: usize>(bytes: &[u8]) -> Result<[u8; N], DecodeError> {
    <[u8; N]>::try_from(bytes)
        .map_err(|_| format!("{} bytes where {N} are right", bytes.len()).into())
}

/// Copies as much as fits on both sides.
pub(crate) fn copy(out: &mut [u8], bytes: &[u8]) {
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
}

/// Integers in the machine's byte order.
pub(crate) struct Native;
/// Integers in network byte order.
pub(crate) struct Network;
/// Texts that end with a NUL byte.
pub(crate) struct Text;
/// Attributes inside an attribute.
pub(crate) struct Nest;
/// Fixed structures.
pub(crate) struct Fixed;

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl Codec<$int> for Native {
            fn len(_: &$int) -> usize {
                size_of::<$int>()
            }
            fn emit(value: &$int, out: &mut [u8]) {
                copy(out, &value.to_ne_bytes());
            }
            fn parse(bytes: &[u8]) -> Result<$int, DecodeError> {
                Ok(<$int>::from_ne_bytes(exact(bytes)?))
            }
        }
    )*};
}
integers!(u8, u16, u32, i32, u64);

impl Codec<u16> for Network {
    fn len(_: &u16) -> usize {
        2
    }
    fn emit(value: &u16, out: &mut [u8]) {
        copy(out, &value.to_be_bytes());
    }
    fn parse(bytes: &[u8]) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(exact(bytes)?))
    }
}

impl Codec<Ipv4Addr> for Network {
    fn len(_: &Ipv4Addr) -> usize {
        4
    }
    fn emit(value: &Ipv4Addr, out: &mut [u8]) {
        copy(out, &value.octets());
    }
    fn parse(bytes: &[u8]) -> Result<Ipv4Addr, DecodeError> {
        Ok(Ipv4Addr::from(exact::<4>(bytes)?))
    }
}

impl Codec<Ipv6Addr> for Network {
    fn len(_: &Ipv6Addr) -> usize {
        16
    }
    fn emit(value: &Ipv6Addr, out: &mut [u8]) {
        copy(out, &value.octets());
    }
    fn parse(bytes: &[u8]) -> Result<Ipv6Addr, DecodeError> {
        Ok(Ipv6Addr::from(exact::<16>(bytes)?))
    }
}

impl Codec<String> for Text {
    fn len(value: &String) -> usize {
        value.len().saturating_add(1).min(MAX_VALUE_LEN)
    }
    fn emit(value: &String, out: &mut [u8]) {
        out.fill(0);
        let room = out.len().saturating_sub(1);
        copy(out.get_mut(..room).unwrap_or_default(), value.as_bytes());
    }
    fn parse(bytes: &[u8]) -> Result<String, DecodeError> {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        // Interface names may have any bytes; refusing them would hide the daemon that has one.
        Ok(String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned())
    }
    fn check(value: &String, name: &dyn Fn() -> String) -> Result<(), EncodeError> {
        if value.contains('\0') {
            return Err(EncodeError::Nul { attribute: name() });
        }
        if value.len() >= MAX_VALUE_LEN {
            return Err(EncodeError::TooLong {
                attribute: name(),
                len: value.len().saturating_add(1),
            });
        }
        Ok(())
    }
}

/// An attribute type made by [`attributes!`].
pub(crate) trait Table: Nla + Sized {
    /// Reads one attribute.
    fn read(buf: &NlaBuffer<&[u8]>) -> Result<Self, DecodeError>;
    /// What can't be written.
    fn check(&self) -> Result<(), EncodeError>;
}

/// Reads attributes to the end of `bytes`.
pub(crate) fn parse_all<A: Table>(bytes: &[u8]) -> Result<Vec<A>, DecodeError> {
    let mut attributes = Vec::new();
    for nla in NlasIterator::new(bytes) {
        attributes.push(A::read(&nla?)?);
    }
    Ok(attributes)
}

/// The attributes that fit into one attribute, as a length.
pub(crate) fn fitting<A: Nla>(attributes: &[A], room: usize) -> usize {
    let mut len = 0usize;
    for attribute in attributes {
        match len.checked_add(attribute.buffer_len()) {
            Some(more) if more <= room => len = more,
            _ => break,
        }
    }
    len
}

/// Writes those attributes that fit.
pub(crate) fn emit_all<A: Nla>(attributes: &[A], out: &mut [u8]) {
    let mut rest = out;
    for attribute in attributes {
        let Some((head, tail)) = rest.split_at_mut_checked(attribute.buffer_len()) else {
            return;
        };
        attribute.emit(head);
        rest = tail;
    }
}

impl<A: Table> Codec<Vec<A>> for Nest {
    fn len(value: &Vec<A>) -> usize {
        fitting(value, MAX_VALUE_LEN)
    }
    fn emit(value: &Vec<A>, out: &mut [u8]) {
        emit_all(value, out);
    }
    fn parse(bytes: &[u8]) -> Result<Vec<A>, DecodeError> {
        parse_all(bytes)
    }
    fn check(value: &Vec<A>, name: &dyn Fn() -> String) -> Result<(), EncodeError> {
        for attribute in value {
            attribute.check()?;
        }
        let len = value
            .iter()
            .fold(0usize, |sum, a| sum.saturating_add(a.buffer_len()));
        if len > MAX_VALUE_LEN {
            return Err(EncodeError::TooLong {
                attribute: name(),
                len,
            });
        }
        Ok(())
    }
}

/// An address of either family in the 16 bytes of `union nf_inet_addr`: an IPv4 address comes first, followed by zeros. Which
/// family it is, another attribute says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// The address as one of the given family; `None` for a family that is neither.
    pub fn to_ip(self, family: AddressFamily) -> Option<IpAddr> {
        let [a, b, c, d, ..] = self.0;
        match family {
            AddressFamily::INET => Some(Ipv4Addr::new(a, b, c, d).into()),
            AddressFamily::INET6 => Some(Ipv6Addr::from(self.0).into()),
            _ => None,
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        let mut bytes = [0; 16];
        match ip {
            IpAddr::V4(v4) => copy(&mut bytes, &v4.octets()),
            IpAddr::V6(v6) => bytes = v6.octets(),
        }
        Self(bytes)
    }
}

impl Codec<Address> for Fixed {
    fn len(_: &Address) -> usize {
        16
    }
    fn emit(value: &Address, out: &mut [u8]) {
        copy(out, &value.0);
    }
    fn parse(bytes: &[u8]) -> Result<Address, DecodeError> {
        // The kernel takes up to 16 bytes and fills up with zeros.
        if bytes.len() > 16 {
            return Err(format!("{} bytes where at most 16 are right", bytes.len()).into());
        }
        let mut address = [0; 16];
        copy(&mut address, bytes);
        Ok(Address(address))
    }
}

/// Makes the type of the attributes of one table. A row is `Name(type as Layout) = number`; the row is the only place that
/// knows the three.
macro_rules! attributes {
    (
        $(#[$meta:meta])*
        pub enum $name:ident: $what:literal {
            $( $(#[$doc:meta])* $variant:ident($ty:ty as $codec:ident) = $kind:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$doc])* $variant($ty), )*
            /// Anything else, kept as it came.
            Other($crate::attribute::Unknown),
        }

        impl netlink_packet_core::Nla for $name {
            fn value_len(&self) -> usize {
                use $crate::attribute::Codec;
                match self {
                    $( Self::$variant(value) => <$crate::attribute::$codec as Codec<$ty>>::len(value), )*
                    Self::Other(other) => other.value.len().min($crate::attribute::MAX_VALUE_LEN),
                }
            }

            fn kind(&self) -> u16 {
                match self {
                    $( Self::$variant(_) => $kind, )*
                    Self::Other(other) => other.kind,
                }
            }

            fn emit_value(&self, buffer: &mut [u8]) {
                use $crate::attribute::Codec;
                match self {
                    $( Self::$variant(value) => <$crate::attribute::$codec as Codec<$ty>>::emit(value, buffer), )*
                    Self::Other(other) => $crate::attribute::copy(buffer, &other.value),
                }
            }
        }

        impl $crate::attribute::Table for $name {
            fn read(buf: &netlink_packet_core::NlaBuffer<&[u8]>) -> Result<Self, netlink_packet_core::DecodeError> {
                use netlink_packet_core::ErrorContext;
                use $crate::attribute::Codec;
                Ok(match buf.kind() {
                    $( $kind => Self::$variant(
                        <$crate::attribute::$codec as Codec<$ty>>::parse(buf.value())
                            .context(concat!($what, " attribute ", stringify!($variant)))?,
                    ), )*
                    _ => Self::Other($crate::attribute::Unknown::parse(buf)?),
                })
            }

            fn check(&self) -> Result<(), $crate::attribute::EncodeError> {
                use $crate::attribute::Codec;
                match self {
                    $( Self::$variant(value) => <$crate::attribute::$codec as Codec<$ty>>::check(
                        value,
                        &|| concat!($what, " attribute ", stringify!($variant)).to_owned(),
                    ), )*
                    Self::Other(other) if other.value.len() > $crate::attribute::MAX_VALUE_LEN => {
                        Err($crate::attribute::EncodeError::TooLong {
                            attribute: format!("{} attribute {}", $what, other.kind),
                            len: other.value.len(),
                        })
                    }
                    Self::Other(_) => Ok(()),
                }
            }
        }

        impl<'a, T: AsRef<[u8]> + ?Sized> netlink_packet_core::Parseable<netlink_packet_core::NlaBuffer<&'a T>> for $name {
            fn parse(
                buf: &netlink_packet_core::NlaBuffer<&'a T>,
            ) -> Result<Self, netlink_packet_core::DecodeError> {
                buf.check_buffer_length()?;
                let inner: &[u8] = buf.clone().into_inner().as_ref();
                <Self as $crate::attribute::Table>::read(&netlink_packet_core::NlaBuffer::new_checked(inner)?)
            }
        }
    };
}

/// A member that an object can't do without.
pub(crate) fn required<T>(member: Option<T>, what: &str) -> Result<T, DecodeError> {
    member.ok_or_else(|| DecodeError::from(format!("{what} is missing")))
}

/// Adds where an error happened.
pub(crate) fn within<T>(result: Result<T, DecodeError>, what: &str) -> Result<T, DecodeError> {
    result.with_context(|| what.to_owned())
}
