//! A published port belongs to one service, or to several only in host mode.

use std::collections::BTreeMap;

use objects::PublishMode;
use store::Store;

pub(super) fn check(store: &Store) -> Result<(), String> {
    let mut owners = BTreeMap::new();
    for service in store.services() {
        for port in service.endpoint.ports.iter().filter(|port| port.published_port != 0) {
            let key = (port.protocol, port.published_port);
            let owner = owners.insert(key, (&service.id, port.publish_mode));
            if owner.is_some_and(|(id, mode)| {
                *id != service.id && (mode, port.publish_mode) != (PublishMode::Host, PublishMode::Host)
            }) {
                return Err(format!("port {key:?} belongs to two services"));
            }
        }
    }
    Ok(())
}
