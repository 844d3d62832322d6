//! Takes ports of this machine: the claim among ourselves, and the socket that keeps foreign processes away.
//!
//! In: requests. Out: bound ports, or Docker's reason. Never writes a rule.

use std::collections::BTreeMap;
use std::io;

use netlink::port_hold::PortHold;
use netplan::{BoundPort, ClaimError, HostPort, PortClaims, PortRequest};

use crate::PortError;
use crate::sysctl;

/// Ports that are ours.
#[derive(Default)]
pub(crate) struct Ports {
    claims: PortClaims,
    holds: BTreeMap<HostPort, PortHold>,
}

impl Ports {
    /// Takes a port for each request of a container, or none at all.
    pub(crate) fn take_all(&mut self, requests: &[PortRequest]) -> Result<Vec<BoundPort>, PortError> {
        let mut bound: Vec<BoundPort> = Vec::with_capacity(requests.len());
        for request in requests {
            let asked = match request.host_ip {
                Some(std::net::IpAddr::V6(ip)) => Err(PortError::Ipv6(ip)),
                _ => self.take(request),
            };
            match asked {
                Ok(host) => bound.push(BoundPort {
                    protocol: request.protocol,
                    container_port: request.container_port,
                    host_ip: host.ip,
                    host_port: host.port,
                }),
                Err(error) => {
                    bound.iter().for_each(|port| self.give_back(&port.host()));
                    return Err(error);
                }
            }
        }
        Ok(bound)
    }

    /// Takes one port.
    pub(crate) fn take(&mut self, request: &PortRequest) -> Result<HostPort, PortError> {
        let ephemeral = if request.host_port == 0 { sysctl::ephemeral_ports() } else { 0..=0 };
        let mut tried = None;
        loop {
            let host = self.claims.candidate(request, &ephemeral, tried).map_err(|error| match error {
                ClaimError::Allocated(host) => PortError::Allocated(host),
                ClaimError::Exhausted => PortError::Exhausted,
            })?;
            match PortHold::take(host.protocol.number(), host.ip, host.port) {
                Ok(hold) => {
                    self.claims.claim(host);
                    if request.host_port == 0 {
                        self.claims.advance(host.protocol, host.port);
                    }
                    self.holds.insert(host, hold);
                    return Ok(host);
                }
                Err(e) if is_taken(&e) && may_try_another(request) => tried = Some(host.port),
                Err(source) => return Err(PortError::Bind { host, reason: reason(&source), source }),
            }
        }
    }

    /// Takes a port that was ours before a restart. False when another of ours has it now; a foreign process that took
    /// it meanwhile is only logged: translated packets never reach its socket.
    pub(crate) fn take_again(&mut self, host: HostPort) -> bool {
        if !self.claims.claim(host) {
            return false;
        }
        match PortHold::take(host.protocol.number(), host.ip, host.port) {
            Ok(hold) => {
                self.holds.insert(host, hold);
            }
            Err(error) => {
                tracing::warn!(port = %host, error = &error as &dyn std::error::Error, "a published port is held by a foreign process too");
            }
        }
        true
    }

    /// Gives a port back.
    pub(crate) fn give_back(&mut self, host: &HostPort) {
        self.claims.release(host);
        self.holds.remove(host);
    }
}

/// A request for exactly this place, as services make it.
pub(crate) fn exactly(place: HostPort) -> PortRequest {
    let HostPort { protocol, ip, port } = place;
    PortRequest { protocol, container_port: port, host_ip: Some(ip), host_port: port, host_port_last: port }
}

fn may_try_another(request: &PortRequest) -> bool {
    request.host_port == 0 || request.host_port_last > request.host_port
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// The system's reason as Go words it, which Docker's clients know.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
