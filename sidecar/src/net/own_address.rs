//! The address by which others know this machine or pod.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Addresses for documentation: far away from every machine, so that the default route leads there.
const FAR: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// The source address of the default route; `None` without one. The kernel only looks it up: nothing is sent.
pub fn own_address() -> Option<IpAddr> {
    FAR.into_iter().find_map(|far| {
        let any: IpAddr =
            if far.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(far).ok()?;
        let own = socket.local_addr().ok()?.ip();
        (!own.is_unspecified() && !own.is_loopback()).then_some(own)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_address_is_one_that_this_machine_has_and_others_can_use() {
        if let Some(own) = own_address() {
            assert!(!own.is_loopback());
            assert!(UdpSocket::bind((own, 0)).is_ok(), "{own} is not of this machine");
        }
    }
}
