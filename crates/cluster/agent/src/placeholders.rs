//! Fills in the placeholders of a task's spec: `{{.Task.Slot}}`, `{{.Node.Hostname}}` and the others.
//!
//! In: the task and its node. Out: the container spec with environment values, host name and mounts filled in. A name
//! that does not exist is an error; nothing else is looked up.

use objects::{ContainerSpec, Mount, Node, NodeDescription, NodeId, Task};
use serde_json::{Value, json};
use template::TemplateError;

/// What placeholders know about the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeFacts {
    pub(crate) id: NodeId,
    pub(crate) description: NodeDescription,
}

impl From<&Node> for NodeFacts {
    fn from(node: &Node) -> Self {
        Self { id: node.id.clone(), description: node.description.clone() }
    }
}

/// A placeholder that cannot be filled in. Source of the texts: moby/swarmkit, `template/template.go`.
#[derive(Debug, thiserror::Error)]
#[error("expanding {what} template failed")]
pub(crate) struct ExpandError {
    pub(crate) what: &'static str,
    #[source]
    pub(crate) source: TemplateError,
}

/// The spec of a task with every placeholder filled in.
pub(crate) fn expand(
    spec: &ContainerSpec,
    task: &Task,
    node: &NodeFacts,
) -> Result<ContainerSpec, ExpandError> {
    let data = data(spec, task, node);
    let fill = |what, text: &mut String| -> Result<(), ExpandError> {
        // Most texts have none, and parsing every environment of every task is work.
        if text.contains("{{") {
            *text = template::render(text, &data).map_err(|source| ExpandError { what, source })?;
        }
        Ok(())
    };
    let mut spec = spec.clone();
    for variable in &mut spec.env {
        if let Some((name, value)) = variable.split_once('=') {
            let (name, mut value) = (name.to_owned(), value.to_owned());
            fill("env", &mut value)?;
            *variable = format!("{name}={value}");
        }
    }
    fill("hostname", &mut spec.hostname)?;
    spec.mounts.iter_mut().try_for_each(|mount| expand_mount(mount, &fill))?;
    Ok(spec)
}

fn expand_mount(
    mount: &mut Mount,
    fill: &impl Fn(&'static str, &mut String) -> Result<(), ExpandError>,
) -> Result<(), ExpandError> {
    fill("mount", &mut mount.source)?;
    fill("mount", &mut mount.target)?;
    let Some(volume) = &mut mount.volume_options else { return Ok(()) };
    volume.labels.values_mut().try_for_each(|value| fill("mount", value))?;
    match &mut volume.driver_config {
        Some(driver) => driver.options.values_mut().try_for_each(|value| fill("mount", value)),
        None => Ok(()),
    }
}

fn data(spec: &ContainerSpec, task: &Task, node: &NodeFacts) -> Value {
    let slot = match task.slot {
        0 => node.id.to_string(),
        slot => slot.to_string(),
    };
    json!({
        "Service": {
            "ID": task.service_id, "Name": task.internal.service_name, "Labels": spec.labels,
        },
        "Node": {
            "ID": node.id, "Hostname": node.description.hostname,
            "Platform": {
                "Architecture": node.description.platform.architecture, "OS": node.description.platform.os,
            },
        },
        "Task": { "ID": task.id, "Name": task.name(), "Slot": slot },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(env: &str) -> Result<String, String> {
        let spec = ContainerSpec { env: vec![env.to_owned()], ..ContainerSpec::default() };
        let mut task = Task { id: "t1".into(), slot: 3, service_id: "s1".into(), ..Task::default() };
        task.internal.service_name = "web".to_owned();
        let description = NodeDescription { hostname: "host1".to_owned(), ..NodeDescription::default() };
        let node = NodeFacts { id: "n1".into(), description };
        match expand(&spec, &task, &node) {
            Ok(mut spec) => Ok(spec.env.remove(0)),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn placeholders_in_values_are_filled_in() {
        assert_eq!(
            filled("A={{.Task.Name}}-{{.Task.Slot}}@{{.Node.Hostname}}").unwrap(),
            "A=web.3.t1-3@host1"
        );
        assert_eq!(filled("A={{.Service.ID}}{{.Node.ID}}").unwrap(), "A=s1n1");
        assert_eq!(filled("{{.Task.ID}}=x").unwrap(), "{{.Task.ID}}=x");
    }

    #[test]
    fn a_placeholder_that_does_not_exist_is_an_error() {
        assert_eq!(filled("A={{.Nothing}}").unwrap_err(), "expanding env template failed");
    }
}
