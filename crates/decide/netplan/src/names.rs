//! Decides which names a network has, and where they lead.
//!
//! In: a network of the swarm as this node is told of it, or the containers on a network of this machine. Out: the rows of
//! its table of names. Only what serves has a name: a task that is not healthy yet, or that is about to stop, is not found,
//! and a service without such tasks doesn't exist. Names as Docker has them: moby, `daemon/libnetwork/agent.go`.

use std::net::IpAddr;

use names::Rows;
use objects::ServiceId;
use wire::network::{EndpointView, NetworkView, ServiceView};

/// What stands before a service's name where its tasks are meant, whatever its virtual address.
const TASKS: &str = "tasks.";

/// A container of this machine on one of its networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalEndpoint<'a> {
    /// Its name, aliases, short id, own name for itself; the first one is what its addresses lead back to.
    pub names: &'a [String],
    /// Its addresses on this network.
    pub addresses: &'a [IpAddr],
}

/// The names of a network of the swarm; none at all on the ingress network, where nobody looks for anybody.
pub fn of_view(view: &NetworkView) -> Rows {
    let mut rows = Rows::new(view.name.clone());
    if view.ingress {
        return rows;
    }
    for endpoint in view.endpoints.values().filter(|endpoint| endpoint.is_serving) {
        add_endpoint(&mut rows, &endpoint.names, &endpoint.addresses);
    }
    for (id, service) in &view.services {
        let backends: Vec<IpAddr> = serving(view, id).flat_map(|task| &task.addresses).copied().collect();
        add_service(&mut rows, service, &backends);
    }
    rows
}

/// The names of a network of this machine.
pub fn of_containers<'a>(network: &str, containers: impl IntoIterator<Item = LocalEndpoint<'a>>) -> Rows {
    let mut rows = Rows::new(network);
    for container in containers {
        add_endpoint(&mut rows, container.names, container.addresses);
    }
    rows
}

fn serving<'a>(view: &'a NetworkView, id: &'a ServiceId) -> impl Iterator<Item = &'a EndpointView> {
    view.endpoints.values().filter(move |task| task.is_serving && task.service.as_ref() == Some(id))
}

/// All names lead to all addresses, and these back to the first name.
fn add_endpoint(rows: &mut Rows, names: &[String], addresses: &[IpAddr]) {
    for name in names {
        for address in addresses {
            rows.add(name, *address);
            rows.add_reverse(*address, name);
        }
    }
}

fn add_service(rows: &mut Rows, service: &ServiceView, backends: &[IpAddr]) {
    if backends.is_empty() {
        return;
    }
    let addresses = if service.vips.is_empty() { backends } else { &service.vips };
    for name in std::iter::once(&service.name).chain(&service.aliases) {
        addresses.iter().for_each(|address| rows.add(name, *address));
        backends.iter().for_each(|address| rows.add(&format!("{TASKS}{name}"), *address));
    }
    service.vips.iter().for_each(|vip| rows.add_reverse(*vip, &service.name));
}

#[cfg(test)]
mod tests {
    use super::*;
    use names::View;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn task(service: &str, address: &str, is_serving: bool) -> EndpointView {
        EndpointView {
            node: "node".into(),
            addresses: vec![ip(address)],
            names: vec![format!("{service}.{}", &address[address.len() - 1..])],
            service: (!service.is_empty()).then(|| service.into()),
            is_serving,
            ports: Vec::new(),
        }
    }

    fn service(name: &str, aliases: &[&str], vips: &[&str]) -> ServiceView {
        ServiceView {
            name: name.to_owned(),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            vips: vips.iter().map(|vip| ip(vip)).collect(),
            ports: Vec::new(),
        }
    }

    fn view(endpoints: &[EndpointView], services: &[ServiceView]) -> NetworkView {
        NetworkView {
            name: "net".to_owned(),
            endpoints: endpoints.iter().enumerate().map(|(n, task)| (n.to_string(), task.clone())).collect(),
            services: services
                .iter()
                .map(|service| (service.name.as_str().into(), service.clone()))
                .collect(),
            ..NetworkView::default()
        }
    }

    /// `name address,address` for each name, in order.
    fn shown(rows: &Rows) -> Vec<String> {
        let addresses = |name| rows.addresses(name).map(|ip| ip.to_string()).collect::<Vec<_>>().join(",");
        rows.names().map(|name| format!("{name} {}", addresses(name))).collect()
    }

    fn check(endpoints: &[EndpointView], services: &[ServiceView], expect: &[&str]) {
        assert_eq!(shown(&of_view(&view(endpoints, services))), expect);
    }

    #[test]
    fn a_service_is_its_vip_and_its_tasks_are_below_tasks() {
        check(
            &[task("web", "10.0.1.3", true), task("web", "10.0.1.4", true)],
            &[service("web", &["www"], &["10.0.1.2"])],
            &[
                "tasks.web 10.0.1.3,10.0.1.4",
                "tasks.www 10.0.1.3,10.0.1.4",
                "web 10.0.1.2",
                "web.3 10.0.1.3",
                "web.4 10.0.1.4",
                "www 10.0.1.2",
            ],
        );
    }

    #[test]
    fn without_a_vip_the_name_is_its_tasks() {
        check(
            &[task("web", "10.0.1.3", true), task("web", "10.0.1.4", true)],
            &[service("web", &[], &[])],
            &["tasks.web 10.0.1.3,10.0.1.4", "web 10.0.1.3,10.0.1.4", "web.3 10.0.1.3", "web.4 10.0.1.4"],
        );
    }

    #[test]
    fn only_what_serves_has_a_name() {
        let web = service("web", &["www"], &["10.0.1.2"]);
        let tasks = [task("web", "10.0.1.3", false), task("web", "10.0.1.4", true)];
        let one =
            ["tasks.web 10.0.1.4", "tasks.www 10.0.1.4", "web 10.0.1.2", "web.4 10.0.1.4", "www 10.0.1.2"];
        check(&tasks, std::slice::from_ref(&web), &one);
        check(&tasks[..1], std::slice::from_ref(&web), &[]);
        check(&[], &[web], &[]);
    }

    #[test]
    fn plain_containers_and_tasks_of_other_services_are_no_backends() {
        check(
            &[task("", "10.0.1.7", true), task("db", "10.0.1.8", true)],
            &[service("web", &[], &["10.0.1.2"])],
            &[".7 10.0.1.7", "db.8 10.0.1.8"],
        );
    }

    #[test]
    fn the_ingress_network_has_no_names() {
        let mut ingress = view(&[task("web", "10.0.0.3", true)], &[service("web", &[], &["10.0.0.2"])]);
        ingress.ingress = true;
        assert_eq!(shown(&of_view(&ingress)), [""; 0]);
    }

    #[test]
    fn addresses_lead_back_to_the_task_and_a_vip_to_its_service() {
        let rows =
            of_view(&view(&[task("web", "10.0.1.3", true)], &[service("web", &["www"], &["10.0.1.2"])]));
        let table = rows.to_table();
        let table = View::read(&table).unwrap();
        assert_eq!(table.name_of(ip("10.0.1.3")), Some(&b"web.3"[..]));
        assert_eq!(table.name_of(ip("10.0.1.2")), Some(&b"web"[..]));
    }

    #[test]
    fn a_container_of_this_machine_is_found_under_each_of_its_names() {
        let names = ["db", "database", "pg", "0123456789ab", "Host"].map(str::to_owned);
        let container = LocalEndpoint { names: &names, addresses: &[ip("172.18.0.2"), ip("fd00::2")] };
        let rows = of_containers("my net", [container]);
        let expect =
            ["0123456789ab", "database", "db", "host", "pg"].map(|name| format!("{name} 172.18.0.2,fd00::2"));
        assert_eq!(shown(&rows), expect);
        let table = rows.to_table();
        assert_eq!(View::read(&table).unwrap().name_of(ip("fd00::2")), Some(&b"db"[..]));
    }

    proptest! {
        /// Whatever there is on a network, its names lead to what serves, to VIPs of services that do, and to nothing else.
        #[test]
        fn no_name_leads_to_what_does_not_serve(
            tasks in prop::collection::vec(("[ab]?", 3u8..30, any::<bool>()), 0..12),
            has_vip in any::<[bool; 2]>(),
        ) {
            let tasks: Vec<_> =
                tasks.iter().map(|(of, last, serves)| task(of, &format!("10.0.1.{last}"), *serves)).collect();
            let vips: [&[&str]; 2] = [&["10.0.1.1"], &["10.0.1.2"]];
            let services = [("a", 0), ("b", 1)]
                .map(|(name, at)| service(name, &[], if has_vip[at] { vips[at] } else { &[] }));
            let rows = of_view(&view(&tasks, &services));
            let serving: Vec<IpAddr> =
                tasks.iter().filter(|task| task.is_serving).flat_map(|task| task.addresses.clone()).collect();
            for service in &services {
                let id = ServiceId::from(service.name.as_str());
                let is_there = tasks.iter().any(|task| task.is_serving && task.service.as_ref() == Some(&id));
                prop_assert_eq!(rows.addresses(&service.name).next().is_some(), is_there);
                prop_assert_eq!(rows.addresses(&format!("tasks.{}", service.name)).next().is_some(), is_there);
            }
            for name in rows.names() {
                for address in rows.addresses(name) {
                    let is_vip = services.iter().any(|service| service.name == name && service.vips.contains(&address));
                    prop_assert!(is_vip || serving.contains(&address), "{} leads to {}", name, address);
                }
            }
        }
    }
}
