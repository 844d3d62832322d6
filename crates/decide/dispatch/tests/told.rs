//! What a node is told: everything at first, then only what is news to it; and that following the news leads to the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dispatch::{Marks, Told, concerned, managers};
use objects::{
    Config, ConfigReference, ContainerSpec, ManagerStatus, Node, NodeId, Reachability, Secret,
    SecretReference, Service, ServiceSpec, Task, TaskId, TaskSpec, TaskState, Timestamp,
};
use proptest::prelude::*;
use store::{Store, Write};
use wire::session::{Assigned, Assignments};

const NOW: Timestamp = Timestamp::from_secs(100);

/// A task that is granted secret and config `grant`, when it is not empty.
fn task(id: &str, node: &str, state: TaskState, grant: &str) -> Task {
    let mut container = ContainerSpec { image: "web".to_owned(), ..ContainerSpec::default() };
    if !grant.is_empty() {
        container.secrets = vec![SecretReference { secret_id: grant.into(), ..SecretReference::default() }];
        container.configs = vec![ConfigReference { config_id: grant.into(), ..ConfigReference::default() }];
    }
    let spec = Arc::new(TaskSpec { container_spec: Some(container), ..TaskSpec::default() });
    let mut task =
        Task { id: id.into(), service_id: "s".into(), node_id: node.into(), spec, ..Task::default() };
    task.slot = 1;
    task.status.state = state;
    task.desired_state = TaskState::Running;
    task
}

struct Bench {
    store: Store,
    told: Told,
    node: NodeId,
}

impl Bench {
    /// Service `s` with credentials, secrets and configs `x` and `y`, and node `n`, which was told of nothing yet.
    fn new() -> Self {
        let mut service =
            Service::new("s".into(), ServiceSpec { name: "web".to_owned(), ..ServiceSpec::default() });
        service.internal.registry_auth = "credentials".to_owned();
        let mut writes = vec![Write::Create(service.into())];
        for name in ["x", "y"] {
            let mut secret = Secret { id: name.into(), ..Secret::default() };
            secret.spec.name = format!("secret-{name}");
            secret.spec.data.0 = "c2VjcmV0".to_owned();
            let mut config = Config { id: name.into(), ..Config::default() };
            config.spec.name = format!("config-{name}");
            writes.extend([Write::Create(secret.into()), Write::Create(config.into())]);
        }
        let mut store = Store::new();
        store.apply(1, NOW, &writes).expect("an empty store takes them");
        let node = NodeId::from("n");
        let (told, first) = Told::everything(&store, &node);
        assert_eq!(first, Assignments::Complete(Assigned::default()));
        Self { store, told, node }
    }

    /// Applies writes and gives the news in short: `+t1 -t2 +secret x`.
    fn news(&mut self, writes: &[Write]) -> String {
        let index = self.store.applied() + 1;
        let changes = self.store.apply(index, NOW, writes).expect("nobody else writes");
        let is_concerned = changes.iter().any(|change| concerned(change).any(|node| *node == self.node));
        let news = self.told.news(&self.store, &Marks::default());
        assert!(is_concerned || news.is_none(), "nobody would have told the node {news:?}");
        let Some(Assignments::Incremental { update, remove }) = news else { return String::new() };
        let mut words: Vec<String> = Vec::new();
        words.extend(update.tasks.iter().map(|found| format!("+{}", found.task.id)));
        words.extend(update.secrets.iter().map(|secret| format!("+{}", secret.name)));
        words.extend(update.configs.iter().map(|config| format!("+{}", config.name)));
        words.extend(remove.tasks.iter().map(|id| format!("-{id}")));
        words.extend(remove.secrets.iter().map(|id| format!("-secret-{id}")));
        words.extend(remove.configs.iter().map(|id| format!("-config-{id}")));
        words.join(" ")
    }

    fn change(&mut self, id: &str, change: impl FnOnce(&mut Task)) -> String {
        let mut task = Task::clone(self.store.task(&id.into()).expect("the task is known"));
        change(&mut task);
        self.news(&[Write::update(task)])
    }

    fn create(&mut self, task: Task) -> String {
        self.news(&[Write::Create(task.into())])
    }
}

#[test]
fn a_node_learns_of_a_task_once_it_is_assigned_and_of_what_managers_change() {
    let mut bench = Bench::new();
    assert_eq!(bench.create(task("t", "n", TaskState::Pending, "")), "");
    assert_eq!(bench.create(task("other", "m", TaskState::Assigned, "")), "");
    assert_eq!(bench.change("t", |task| task.status.state = TaskState::Assigned), "+t");
    assert_eq!(bench.change("t", |task| task.status.state = TaskState::Running), "");
    assert_eq!(bench.change("t", |task| task.status.message = "started".to_owned()), "");
    assert_eq!(bench.change("t", |task| task.desired_state = TaskState::Shutdown), "+t");
    let gone = bench.store.task(&"t".into()).unwrap().clone();
    assert_eq!(bench.news(&[Write::remove(gone)]), "-t");
}

#[test]
fn credentials_come_with_the_task_and_with_nothing_else() {
    let mut bench = Bench::new();
    bench.create(task("t", "n", TaskState::Assigned, ""));
    let (_, all) = Told::everything(&bench.store, &bench.node);
    let Assignments::Complete(all) = all else { panic!("{all:?}") };
    assert_eq!(all.tasks[0].registry_auth.reveal(), "credentials");
    assert!(!format!("{all:?}").contains("credentials"));
}

#[test]
fn what_a_task_is_granted_comes_with_it_and_goes_when_the_last_one_ends() {
    let mut bench = Bench::new();
    let first = bench.create(task("t1", "n", TaskState::Assigned, "x"));
    assert_eq!(first, "+t1 +secret-x +config-x");
    assert_eq!(bench.create(task("t2", "n", TaskState::Assigned, "x")), "+t2");
    assert_eq!(bench.create(task("t3", "n", TaskState::Assigned, "unknown")), "+t3");
    assert_eq!(bench.change("t1", |task| task.desired_state = TaskState::Shutdown), "+t1");
    assert_eq!(bench.change("t1", |task| task.status.state = TaskState::Shutdown), "");
    let ended = bench.change("t2", |task| task.status.state = TaskState::Failed);
    assert_eq!(ended, "-secret-x -config-x");
    let (_, all) = Told::everything(&bench.store, &bench.node);
    let Assignments::Complete(all) = all else { panic!("{all:?}") };
    assert_eq!((all.tasks.len(), all.secrets.len(), all.configs.len()), (3, 0, 0));
}

#[test]
fn a_node_may_turn_to_every_manager_that_may_be_there() {
    let managers_of = |reachable: &[Reachability]| {
        let nodes = reachable.iter().enumerate().map(|(number, reachability)| {
            let addr = format!("10.0.0.{number}:2377");
            let status = ManagerStatus { leader: number == 0, addr, reachability: *reachability };
            let id = format!("m{number}");
            Write::Create(Node { id: id.into(), manager_status: Some(status), ..Node::default() }.into())
        });
        let mut store = Store::new();
        let worker = Write::Create(Node { id: "w".into(), ..Node::default() }.into());
        store.apply(1, NOW, &nodes.chain([worker]).collect::<Vec<_>>()).unwrap();
        managers(&store).iter().map(|peer| format!("{} {}", peer.node, peer.weight)).collect::<Vec<_>>()
    };
    use Reachability::{Reachable, Unknown, Unreachable};
    assert_eq!(managers_of(&[Reachable, Unreachable, Unknown]), ["m0 10", "m1 1", "m2 10"]);
}

/// What an agent knows that follows its session.
#[derive(Default, Debug, PartialEq)]
struct Agent {
    tasks: BTreeMap<TaskId, TaskState>,
    granted: BTreeSet<String>,
}

impl Agent {
    fn hear(&mut self, said: Assignments) {
        match said {
            Assignments::Complete(all) => {
                *self = Self::default();
                self.add(all);
            }
            Assignments::Incremental { update, remove } => {
                self.tasks.retain(|id, _| !remove.tasks.contains(id));
                self.granted.retain(|id| !remove.secrets.iter().any(|gone| gone.as_str() == id));
                self.add(update);
            }
        }
    }

    fn add(&mut self, some: Assigned) {
        self.tasks.extend(some.tasks.iter().map(|found| (found.task.id.clone(), found.task.desired_state)));
        self.granted.extend(some.secrets.iter().map(|secret| secret.id.to_string()));
    }
}

proptest! {
    /// A node that follows the news, and may miss any number of commits between two of them, knows what one would be told
    /// that comes new.
    #[test]
    fn news_lead_to_what_everything_says(
        steps in prop::collection::vec((0..4_u8, 0..5_u8, 0..3_u8, any::<bool>()), 1..40)
    ) {
        let mut bench = Bench::new();
        let mut agent = Agent::default();
        for (action, number, grant, is_told) in steps {
            let id = format!("t{number}");
            let index = bench.store.applied() + 1;
            let known = bench.store.task(&id.as_str().into()).cloned();
            let write = match (known, action) {
                (None, _) => {
                    let node = if number % 2 == 0 { "n" } else { "" };
                    let grant = ["", "x", "y"][usize::from(grant)];
                    Write::Create(task(&id, node, TaskState::Pending, grant).into())
                }
                (Some(task), 0) => Write::remove(task),
                (Some(task), 1) => {
                    let mut task = Task::clone(&task);
                    task.node_id = "n".into();
                    task.status.state = task.status.state.max(TaskState::Assigned);
                    Write::update(task)
                }
                (Some(task), 2) => {
                    let mut task = Task::clone(&task);
                    task.desired_state = TaskState::Shutdown;
                    Write::update(task)
                }
                (Some(task), _) => {
                    let mut task = Task::clone(&task);
                    task.status.state = TaskState::Failed;
                    Write::update(task)
                }
            };
            bench.store.apply(index, NOW, &[write]).unwrap();
            if is_told {
                bench.told.news(&bench.store, &Marks::default()).into_iter().for_each(|news| agent.hear(news));
                let mut fresh = Agent::default();
                fresh.hear(Told::everything(&bench.store, &bench.node).1);
                prop_assert_eq!(&agent, &fresh);
                prop_assert_eq!(bench.told.news(&bench.store, &Marks::default()), None);
            }
        }
    }
}
