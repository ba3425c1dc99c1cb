//! The addresses of guests: each interface has one of its own in 127.0.0.0/8.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;
use uuid::Uuid;

const SSH: u16 = 22;
/// Where SSH answers when port 22 may not be had.
const OTHER: u16 = 2222;
/// Addresses that are tried before the port is given up.
const TRIES: u32 = 32;

/// An address of no guest's, to find out about the port.
const PROBE: Ipv4Addr = Ipv4Addr::new(127, 240, 0, 1);

/// Hands out addresses, with one port for all.
#[derive(Debug)]
pub(super) struct Addresses {
    port: u16,
}

impl Addresses {
    /// With this port, or else 22 where it may be had and 2222 where not.
    pub(super) fn new(port: Option<u16>) -> Self {
        let usual = || {
            // Ports below 1024 may be for root only; and a server of the machine's own may have
            // taken the port on all addresses.
            let free = std::net::TcpListener::bind((PROBE, SSH)).is_ok();
            if free { SSH } else { OTHER }
        };
        Self { port: port.unwrap_or_else(usual) }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Listens on an address for this interface of this VM: the same each time, as long as nobody else
    /// has it.
    pub(super) async fn listen(
        &self,
        vm: Uuid,
        device: u32,
    ) -> io::Result<(Ipv4Addr, TcpListener)> {
        listen_on(vm, device, self.port).await
    }

    /// Listens on the address that a guest has chosen itself.
    pub(super) async fn listen_at(&self, address: Ipv4Addr) -> io::Result<(Ipv4Addr, TcpListener)> {
        let listener = TcpListener::bind(SocketAddr::from((address, self.port))).await;
        let listener = listener.map_err(|error| {
            io::Error::new(error.kind(), format!("{address} is taken by another: {error}"))
        })?;
        Ok((address, listener))
    }
}

async fn listen_on(vm: Uuid, device: u32, port: u16) -> io::Result<(Ipv4Addr, TcpListener)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for attempt in 0..TRIES {
        let address = candidate(vm, device, attempt);
        match TcpListener::bind(SocketAddr::from((address, port))).await {
            Ok(listener) => return Ok((address, listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// The address to try first, and those after it: spread over 127.16.0.1 to 127.239.255.254.
fn candidate(vm: Uuid, device: u32, attempt: u32) -> Ipv4Addr {
    let (high, low) = vm.as_u64_pair();
    let folded = high ^ low;
    let step = u64::from(device) * 0x9e37_79b9 + u64::from(attempt) * 0x0001_0003;
    let [.., b, c, d] = folded.rotate_left(17).wrapping_add(step).to_be_bytes();
    Ipv4Addr::new(127, 16 + b % 224, c, 1 + d % 254)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_differ_by_vm_device_and_attempt_and_stay_on_loopback() {
        let mut seen = std::collections::HashSet::new();
        for vm in 0..50_u128 {
            for device in 0..4 {
                let vm = Uuid::from_u128(vm * 0x1234_5678_9abc_def0_1234);
                let address = candidate(vm, device, 0);
                assert!(address.is_loopback() && (16..240).contains(&address.octets()[1]));
                assert_eq!(address, candidate(vm, device, 0));
                assert_ne!(address, candidate(vm, device, 1));
                seen.insert(address);
            }
        }
        assert!(seen.len() > 190, "{}", seen.len());
    }
}
