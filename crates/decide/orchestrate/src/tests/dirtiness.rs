//! Which changes of a service replace its tasks.

use objects::{Constraint, EndpointSpec, Node, Placement, PortConfig, ServiceMode, ServiceSpec};

use super::{Bench, spec};
use crate::is_outdated;

fn check(change: impl FnOnce(&mut ServiceSpec), expect: bool) {
    let mut bench = Bench::new(&["a"]);
    bench.ask(spec(ServiceMode::replicas(1)));
    bench.obey();
    let task = bench.tasks()[0].clone();
    let mut next = spec(ServiceMode::replicas(1));
    change(&mut next);
    let service = bench.service().updated(next);
    let node = bench.store.node(&"a".into()).unwrap();
    assert_eq!(is_outdated(&service, &task, Some(node)), expect, "{:?}", service.spec);
    assert!(!is_outdated(&bench.service(), &task, None));
}

#[test]
fn what_a_task_runs_outdates_it_and_what_surrounds_it_does_not() {
    check(|_| {}, false);
    check(|spec| drop(spec.labels.insert("a".to_owned(), "b".to_owned())), false);
    check(|spec| spec.mode = ServiceMode::replicas(9), false);
    check(|spec| spec.update_config = Some(Default::default()), false);
    check(|spec| spec.task_template.force_update = 1, true);
    check(|spec| spec.task_template.container_spec.as_mut().unwrap().env.push("A=b".to_owned()), true);
    check(|spec| spec.task_template.container_spec.as_mut().unwrap().image.push('x'), true);
    let ports = vec![PortConfig { target_port: 80, ..Default::default() }];
    check(|spec| spec.endpoint_spec = Some(EndpointSpec { ports, ..Default::default() }), true);
    check(|spec| spec.endpoint_spec = Some(EndpointSpec::default()), false);
}

#[test]
fn constraints_outdate_only_tasks_on_nodes_that_fail_them() {
    let constrain = |text: &str| {
        let constraints = vec![text.to_owned()];
        move |spec: &mut ServiceSpec| {
            spec.task_template.placement = Some(Placement { constraints, ..Default::default() });
        }
    };
    check(constrain("node.id==a"), false);
    check(constrain("node.id==b"), true);
    check(
        |spec| spec.task_template.placement = Some(Placement { max_replicas: 1, ..Default::default() }),
        true,
    );
    let node = Node { id: "a".into(), ..Default::default() };
    assert!("node.id==a".parse::<Constraint>().unwrap().is_satisfied_by(&node));
}
