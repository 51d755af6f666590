//! Identifies the peer of a loopback connection: the kernel knows the user of every socket of the pod
//! (`sock_diag(7)`).

use std::net::{IpAddr, SocketAddr};

/// The origin of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A process of the pod's own user.
    Inside,
    /// Any other: the runtime, for a port-forward.
    Outside,
}

/// The origin of the connection from `peer` to us at `local`.
#[cfg(target_os = "linux")]
pub(super) fn origin(peer: &SocketAddr, local: &SocketAddr) -> Origin {
    match user(peer, local) {
        Ok(Some(user)) if user != rustix::process::geteuid().as_raw() => Origin::Outside,
        // Already closed, or ours.
        Ok(_) => Origin::Inside,
        // A sandbox without sock_diag: all connections are treated alike.
        Err(_) => Origin::Outside,
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn origin(_: &SocketAddr, _: &SocketAddr) -> Origin {
    Origin::Inside
}

/// The user of the socket bound to `own` and connected to `other`; `None` if there is none.
#[cfg(target_os = "linux")]
fn user(own: &SocketAddr, other: &SocketAddr) -> std::io::Result<Option<u32>> {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    rustix::net::send(&socket, &question(own, other), SendFlags::empty())?;
    let mut answer = [0; 512];
    let (count, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    Ok(answered(&answer[..count]))
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const HEADER: usize = 16;

/// `nlmsghdr` and `inet_diag_req_v2` for one exact socket.
fn question(own: &SocketAddr, other: &SocketAddr) -> [u8; HEADER + 56] {
    let mut bytes = [0; HEADER + 56];
    let length = u32::try_from(bytes.len()).unwrap_or(0);
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&1_u16.to_ne_bytes()); // NLM_F_REQUEST
    let request = &mut bytes[HEADER..];
    request[0] = if own.is_ipv4() { 2 } else { 10 }; // AF_INET, AF_INET6
    request[1] = 6; // IPPROTO_TCP
    request[4..8].copy_from_slice(&u32::MAX.to_ne_bytes()); // in any state
    request[8..10].copy_from_slice(&own.port().to_be_bytes());
    request[10..12].copy_from_slice(&other.port().to_be_bytes());
    for (at, address) in [(12, own.ip()), (28, other.ip())] {
        match address {
            IpAddr::V4(address) => request[at..at + 4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => request[at..at + 16].copy_from_slice(&address.octets()),
        }
    }
    request[48..56].fill(0xff); // no cookie
    bytes
}

/// The user in an `inet_diag_msg`; an error message contains none.
fn answered(bytes: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(*bytes.get(4..6)?.first_chunk()?);
    let user = bytes.get(HEADER + 64..)?.first_chunk::<4>()?;
    (kind == SOCK_DIAG_BY_FAMILY).then(|| u32::from_ne_bytes(*user))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn our_own_connection_is_known_by_its_user() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let local = listener.local_addr().unwrap();
            let client = TcpStream::connect(local).unwrap();
            let own = client.local_addr().unwrap();
            assert_eq!(user(&own, &local).unwrap(), Some(rustix::process::geteuid().as_raw()));
            assert_eq!(origin(&own, &local), Origin::Inside);
        }
    }

    #[test]
    fn a_socket_that_is_not_there_has_no_user() {
        let (own, other) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        assert_eq!(user(&own, &other).unwrap(), None);
        assert_eq!(answered(&[0; 20]), None);
    }
}
