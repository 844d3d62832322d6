//! A manager in a temporary directory: what users ask for, what a node is told, what survives a restart.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::path::Path;

use docker::filters::Filters;
use manager::{ClusterUpdate, Code, Manager, ManagerError, Origin, RegistryAuthFrom, ServiceUpdate, Session};
use objects::{ClusterSpec, NodeId, NodeRole, ServiceSpec, TaskState, TaskStatus};
use pki::Authority;
use support::{Papers, description, filter, now, soon, spec, version};
use wire::session::{Assigned, Assignments, OpenRequest, SessionMessage};

const NODE: &str = "node1";

fn papers() -> (Authority, Papers) {
    let authority = Authority::create(now()).unwrap();
    let papers = Papers::certified(&authority, NODE, NodeRole::Manager);
    (authority, papers)
}

async fn found(directory: &Path) -> Manager {
    let (authority, papers) = papers();
    support::found(directory, &papers, &authority).await
}

fn update(version: u64, spec: ServiceSpec) -> ServiceUpdate {
    let registry_auth_from = RegistryAuthFrom::Spec;
    ServiceUpdate { version, spec, registry_auth: None, registry_auth_from, rollback: false }
}

fn opening() -> OpenRequest {
    let address = "127.0.0.1".to_owned();
    OpenRequest { description: description("host1"), address, now: now(), ..OpenRequest::default() }
}

/// The next change of assignments.
async fn changed(session: &mut Session) -> (Assigned, Vec<objects::TaskId>) {
    loop {
        match soon(session.next()).await.expect("the session goes on") {
            SessionMessage::Assignments(Assignments::Incremental { update, remove }) => {
                // News of networks alone are not what is waited for.
                if !update.tasks.is_empty() || !remove.tasks.is_empty() {
                    return (update, remove.tasks);
                }
            }
            SessionMessage::Changed(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn session(manager: &Manager) -> Session {
    let mut session = manager.open_session(&NodeId::from(NODE), opening(), Origin::Here).await.unwrap();
    assert!(matches!(soon(session.next()).await, Some(SessionMessage::Hello(_))));
    let complete = soon(session.next()).await;
    assert!(matches!(complete, Some(SessionMessage::Assignments(Assignments::Complete(_)))));
    session
}

/// Reports every new task as running until `count` of them run.
async fn run_tasks(manager: &Manager, session: &mut Session, count: usize) {
    let mut running = 0;
    while running < count {
        let (update, _) = changed(session).await;
        let reports = update
            .tasks
            .into_iter()
            .filter(|assignment| assignment.task.desired_state == TaskState::Running)
            .map(|assignment| {
                let status =
                    TaskStatus { state: TaskState::Running, timestamp: now(), ..TaskStatus::default() };
                (assignment.task.id.clone(), status)
            })
            .collect::<Vec<_>>();
        running += reports.len();
        manager.report(&NodeId::from(NODE), reports).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_created_service_is_assigned_and_its_reports_are_counted() {
    let root = tempfile::tempdir().unwrap();
    let manager = found(root.path()).await;
    let mut session = session(&manager).await;
    // The loop that decides runs as soon as this one has tasks.
    manager.create_service(spec("first", 1), None).await.unwrap();
    assert_eq!(changed(&mut session).await.0.tasks.len(), 1);
    let created = manager.create_service(spec("web", 3), Some("secret".to_owned())).await.unwrap();
    let (update, remove) = changed(&mut session).await;
    let update = update.tasks;
    assert_eq!((update.len(), remove.len()), (3, 0), "all of them in one message");
    for assignment in &update {
        assert_eq!(assignment.task.status.state, TaskState::Assigned);
        assert_eq!(assignment.registry_auth.reveal(), "secret");
    }
    let created_at = version(&manager.service("web", false).unwrap());
    let assigned_at = update[0].task.meta.version.index;
    assert_eq!(assigned_at, created_at + 1, "one commit after the service's own");

    let reports = update.iter().map(|assignment| {
        (assignment.task.id.clone(), TaskStatus { state: TaskState::Running, ..TaskStatus::default() })
    });
    manager.report(&NodeId::from(NODE), reports.collect()).await.unwrap();
    let listed = manager.services(&filter("name", "we"), true).unwrap();
    let listed: Vec<serde_json::Value> =
        listed.iter().map(|shown| serde_json::from_str(shown.text()).unwrap()).collect();
    assert_eq!(listed[0]["ID"], created.id.as_str());
    assert_eq!(listed[0]["ServiceStatus"]["RunningTasks"], 3);
    assert_eq!(listed[0]["ServiceStatus"]["DesiredTasks"], 3);
    assert!(!listed[0].to_string().contains("secret"), "credentials are nobody's business");
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_service_takes_its_tasks_away() {
    let root = tempfile::tempdir().unwrap();
    let manager = found(root.path()).await;
    let mut session = session(&manager).await;
    manager.create_service(spec("web", 2), None).await.unwrap();
    run_tasks(&manager, &mut session, 2).await;
    manager.remove_service("web").await.unwrap();
    let mut removed = 0;
    while removed < 2 {
        let (update, remove) = changed(&mut session).await;
        removed += remove.len();
        let stopped = update.tasks.into_iter().map(|assignment| {
            (assignment.task.id.clone(), TaskStatus { state: TaskState::Shutdown, ..TaskStatus::default() })
        });
        manager.report(&NodeId::from(NODE), stopped.collect()).await.unwrap();
    }
    assert!(manager.tasks(&Filters::default()).unwrap().is_empty());
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reopened_manager_has_everything_and_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let (authority, papers) = papers();
    let manager = support::found(root.path(), &papers, &authority).await;
    manager.create_service(spec("web", 2), None).await.unwrap();
    let swarm = manager.swarm().unwrap();
    manager.stop().await;
    drop(manager);
    let manager = Manager::open(papers.config(root.path(), 7, "127.0.0.1:2377").0).await.unwrap();
    assert_eq!(manager.swarm().unwrap(), swarm);
    let mut session = session(&manager).await;
    manager.create_service(spec("api", 1), None).await.unwrap();
    soon(async {
        while manager.tasks(&filter("service", "api")).unwrap().is_empty() {
            session.next().await;
        }
    })
    .await;
    assert_eq!(manager.services(&Filters::default(), false).unwrap().len(), 2);
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_dockers_words() {
    let root = tempfile::tempdir().unwrap();
    let manager = found(root.path()).await;
    manager.create_service(spec("web", 0), None).await.unwrap();
    let check = |error: ManagerError, text: &str, code: Code| {
        assert_eq!((error.to_string().as_str(), error.code()), (text, code));
    };
    check(manager.service("nope", false).unwrap_err(), "service nope not found", Code::NotFound);
    check(manager.node("nope").unwrap_err(), "node nope not found", Code::NotFound);
    check(manager.tasks(&filter("service", "nope")).unwrap_err(), "service nope not found", Code::NotFound);
    check(
        manager.create_service(spec("WEB", 1), None).await.unwrap_err(),
        "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service WEB already exists",
        Code::AlreadyExists,
    );
    check(
        manager.update_service("web", update(1, spec("web", 1))).await.unwrap_err(),
        "rpc error: code = Unknown desc = update out of sequence",
        Code::Unknown,
    );
    let read = version(&manager.service("web", false).unwrap());
    let rollback = ServiceUpdate { rollback: true, ..update(read, spec("web", 0)) };
    let error = manager.update_service("web", rollback).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.to_string().ends_with("does not have a previous spec"), "{error}");
    let error = manager.tasks(&filter("colour", "red")).unwrap_err();
    check(error, "invalid filter 'colour'", Code::InvalidArgument);
    let error = manager.remove_node(NODE, true).await.unwrap_err();
    assert!(
        error.to_string().contains("is a cluster manager and is a member of the raft cluster"),
        "{error}"
    );
    let node = manager.node(NODE).unwrap();
    let worker =
        serde_json::from_value(serde_json::json!({"Role": "worker", "Availability": "active"})).unwrap();
    check(
        manager.update_node(NODE, version(&node), worker).await.unwrap_err(),
        "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm",
        Code::FailedPrecondition,
    );
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotated_tokens_change_and_the_authoritys_key_never_shows() {
    let root = tempfile::tempdir().unwrap();
    let manager = found(root.path()).await;
    let before = manager.swarm().unwrap();
    let rotate = ClusterUpdate { rotate_worker_token: true, ..ClusterUpdate::default() };
    manager.update_cluster(version(&before), ClusterSpec::default(), rotate).await.unwrap();
    let after = manager.swarm().unwrap();
    assert_ne!(before["JoinTokens"]["Worker"], after["JoinTokens"]["Worker"]);
    assert_eq!(before["JoinTokens"]["Manager"], after["JoinTokens"]["Manager"]);
    let token: pki::JoinToken = after["JoinTokens"]["Worker"].as_str().unwrap().parse().unwrap();
    token.check_root(after["TLSInfo"]["TrustRoot"].as_str().unwrap()).unwrap();
    assert!(!after.to_string().contains("PRIVATE KEY"));
    let named = ClusterSpec { name: "other".to_owned(), ..ClusterSpec::default() };
    let error = manager.update_cluster(version(&after), named, ClusterUpdate::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "swarm spec must be named \"default\"");
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_say_what_changed() {
    let root = tempfile::tempdir().unwrap();
    let manager = found(root.path()).await;
    let mut events = manager.events();
    manager.create_service(spec("web", 1), None).await.unwrap();
    let event = soon(events.next()).await.unwrap();
    assert_eq!((event.kind, event.action, event.attributes["name"].as_str()), ("service", "create", "web"));
    let read = version(&manager.service("web", false).unwrap());
    manager.update_service("web", update(read, spec("web", 4))).await.unwrap();
    let event = soon(events.next()).await.unwrap();
    assert_eq!((event.action, event.attributes["replicas.old"].as_str()), ("update", "1"));
    assert_eq!(event.attributes["replicas.new"], "4");
    manager.remove_service("web").await.unwrap();
    soon(async { while events.next().await.unwrap().action != "remove" {} }).await;
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_reports_only_on_its_own_tasks_and_never_backwards() {
    let root = tempfile::tempdir().unwrap();
    let manager = found(root.path()).await;
    let mut session = session(&manager).await;
    manager.create_service(spec("web", 1), None).await.unwrap();
    run_tasks(&manager, &mut session, 1).await;
    let task = manager.tasks(&Filters::default()).unwrap().remove(0);
    let id = objects::TaskId::from(task["ID"].as_str().unwrap());
    let starting = TaskStatus { state: TaskState::Starting, ..TaskStatus::default() };
    manager.report(&NodeId::from(NODE), vec![(id.clone(), starting.clone())]).await.unwrap();
    assert_eq!(manager.task(id.as_str()).unwrap()["Status"]["State"], "running");
    let foreign = manager.report(&NodeId::from("node2"), vec![(id, starting.clone())]).await.unwrap_err();
    assert_eq!(foreign.code(), Code::PermissionDenied);
    manager.report(&NodeId::from(NODE), vec![("unknown".into(), starting)]).await.unwrap();
    manager.stop().await;
}
