//! Reads `--mount` and `--volume`.
//!
//! In: `type=bind,source=/a,target=/b,readonly`. Out: a mount as the API takes it.

use crate::CliError;
use crate::commands::read;
use serde_json::{Value, json};

/// Reads one `--mount`.
///
/// # Errors
/// When a key is unknown, a value has the wrong form, or the target is missing.
pub fn parse(text: &str) -> Result<Value, CliError> {
    let mut mount = json!({"Type": "volume"});
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        set(&mut mount, &key.to_lowercase(), value, field)?;
    }
    if mount.get("Target").is_none() {
        return Err(CliError::new("target is required"));
    }
    let kind = mount["Type"].as_str().unwrap_or_default().to_owned();
    for (option, wants) in [("VolumeOptions", "volume"), ("BindOptions", "bind"), ("TmpfsOptions", "tmpfs")] {
        if mount.get(option).is_some() && kind != wants {
            return Err(CliError::new(format!("cannot mix '{wants}-*' options with mount type '{kind}'")));
        }
    }
    Ok(mount)
}

fn set(mount: &mut Value, key: &str, value: Option<&str>, field: &str) -> Result<(), CliError> {
    let on = || match value {
        None | Some("true" | "1") => Ok(json!(true)),
        Some("false" | "0") => Ok(json!(false)),
        Some(other) => Err(CliError::new(format!("invalid value for {key}: {other}"))),
    };
    match key {
        "readonly" | "ro" => mount["ReadOnly"] = on()?,
        "volume-nocopy" => mount["VolumeOptions"]["NoCopy"] = on()?,
        "bind-nonrecursive" => mount["BindOptions"]["NonRecursive"] = on()?,
        _ => {
            let value = value
                .ok_or_else(|| CliError::new(format!("invalid field '{field}' must be a key=value pair")))?;
            set_valued(mount, key, value, field)?;
        }
    }
    Ok(())
}

fn set_valued(mount: &mut Value, key: &str, value: &str, field: &str) -> Result<(), CliError> {
    match key {
        "type" => mount["Type"] = json!(value.to_lowercase()),
        "source" | "src" => mount["Source"] = json!(value),
        "target" | "dst" | "destination" => mount["Target"] = json!(value),
        "consistency" => mount["Consistency"] = json!(value.to_lowercase()),
        "bind-propagation" => mount["BindOptions"]["Propagation"] = json!(value.to_lowercase()),
        "bind-create-src" => mount["BindOptions"]["CreateMountpoint"] = json!(value == "true"),
        "volume-subpath" => mount["VolumeOptions"]["Subpath"] = json!(value),
        "volume-driver" => mount["VolumeOptions"]["DriverConfig"]["Name"] = json!(value),
        "volume-label" | "volume-opt" => {
            let (name, text) = value.split_once('=').unwrap_or((value, ""));
            if key == "volume-label" {
                mount["VolumeOptions"]["Labels"][name] = json!(text);
            } else {
                mount["VolumeOptions"]["DriverConfig"]["Options"][name] = json!(text);
            }
        }
        "tmpfs-size" => mount["TmpfsOptions"]["SizeBytes"] = json!(read::size(value)?),
        "tmpfs-mode" => {
            let mode = u32::from_str_radix(value, 8);
            let mode = mode.map_err(|_| CliError::new(format!("invalid value for {key}: {value}")))?;
            mount["TmpfsOptions"]["Mode"] = json!(mode);
        }
        _ => return Err(CliError::new(format!("unexpected key '{key}' in '{field}'"))),
    }
    Ok(())
}

/// `--volume` with a relative host path made absolute, as docker's client does.
pub fn absolute(volume: &str) -> String {
    let (source, rest) = volume.split_once(':').unwrap_or((volume, ""));
    if !source.starts_with('.') {
        return volume.to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default().join(source);
    let clean = here.components().fold(std::path::PathBuf::new(), |mut path, part| {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => drop(path.pop()),
            other => path.push(other),
        }
        path
    });
    format!("{}:{rest}", clean.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_by_key() {
        let mount =
            parse("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").expect("all keys are known");
        assert_eq!(
            mount,
            json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true, "BindOptions": {"Propagation": "rslave"}})
        );
        for (text, error) in [
            ("type=tmpfs", "target is required"),
            ("type=bind,target=/x,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
            ("target=/x,foo=1", "unexpected key 'foo' in 'foo=1'"),
            ("target", "invalid field 'target' must be a key=value pair"),
        ] {
            assert_eq!(parse(text).expect_err(text).to_string(), error);
        }
    }
}
