//! Volumes, binds, tmpfs, and the writable layer.

use std::collections::BTreeMap;

use docker::{ContainerCreateRequest, Filters, HostConfig, Mount};
use engine::{EngineError, RemoveOptions, WaitCondition};

use crate::world::{World, plain, shell};

crate::cases![
    a_new_named_volume_gets_the_images_content_and_keeps_changes,
    anonymous_volumes_go_with_their_container,
    binds_show_the_hosts_files,
    a_tmpfs_is_empty_and_not_executable,
    a_volume_in_use_stays,
    a_refused_create_leaves_nothing,
    a_volume_that_is_mounted_is_filled_in_place,
    another_containers_anonymous_volume_can_be_used,
    a_subpath_does_not_leave_its_volume,
    a_removal_that_fails_is_told_and_tried_again,
];

fn binds(list: &[&str]) -> HostConfig {
    HostConfig { binds: Some(list.iter().map(|bind| (*bind).to_owned()).collect()), ..plain() }
}

async fn a_new_named_volume_gets_the_images_content_and_keeps_changes(world: World) {
    let script = "cat /srv/hello /srv/sub/deep; echo mine > /srv/hello; rm /srv/sub/deep";
    let (code, output) = world.run(script, binds(&["data:/srv"])).await;
    assert_eq!((code, output.as_str()), (0, "hello from the image\ndeep\n"));
    let (code, output) = world.run("cat /srv/hello; ls /srv/sub", binds(&["data:/srv"])).await;
    assert_eq!((code, output.as_str()), (0, "mine\n"));
    let (code, _) = world.run("echo x > /srv/hello", binds(&["data:/srv:ro"])).await;
    assert_ne!(code, 0);
    let shown = world.engine.volume_inspect("data").await.unwrap();
    assert!(std::path::Path::new(&shown.mountpoint).join("hello").exists());
    world.engine.volume_remove("data", false).await.unwrap();
    assert!(!std::path::Path::new(&shown.mountpoint).exists());
    let error = world.engine.volume_inspect("data").await.unwrap_err();
    assert_eq!(error.to_string(), "get data: no such volume");
}

async fn anonymous_volumes_go_with_their_container(world: World) {
    let create = async || {
        let mut config = shell("cat /srv/hello");
        config.volumes = Some([("/srv".to_owned(), Default::default())].into());
        world.create_with(ContainerCreateRequest { config, host_config: plain(), ..Default::default() }).await
    };
    let count = async || world.engine.volume_list(&Filters::default()).await.unwrap().volumes.len();
    let id = create().await;
    assert_eq!(world.run_created(&id).await.1, "hello from the image\n");
    assert_eq!(count().await, 1);
    world.engine.remove(&id, RemoveOptions::default()).await.unwrap();
    assert_eq!(count().await, 1);
    let id = create().await;
    world.engine.remove(&id, RemoveOptions { force: false, volumes: true }).await.unwrap();
    assert_eq!(count().await, 1);
    let report = world.engine.volumes_prune(&Filters::default()).await.unwrap();
    assert_eq!((report.volumes_deleted.unwrap().len(), count().await), (1, 0));
}

async fn binds_show_the_hosts_files(world: World) {
    let dir = world.root.join("shared");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("note"), "from the host\n").unwrap();
    let bind = format!("{}:/mnt/in:ro", dir.display());
    let (code, output) = world.run("cat /mnt/in/note; touch /mnt/in/x", binds(&[&bind])).await;
    assert!(code != 0 && output.starts_with("from the host\n"), "{code} {output}");
    // `-v` makes a missing source, `--mount` refuses it.
    let missing = world.root.join("missing");
    let (code, _) = world.run("touch /m/x", binds(&[&format!("{}:/m", missing.display())])).await;
    assert!(code == 0 && missing.join("x").exists());
    let gone = world.root.join("gone").display().to_string();
    let mount =
        Mount { kind: "bind".into(), source: gone.clone(), target: "/m".into(), ..Default::default() };
    let host_config = HostConfig { mounts: vec![mount], ..plain() };
    let request = ContainerCreateRequest { config: shell("true"), host_config, ..Default::default() };
    let error = world.engine.create(request).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("invalid mount config for type \"bind\": bind source path does not exist: {gone}")
    );
}

async fn a_tmpfs_is_empty_and_not_executable(world: World) {
    let host =
        HostConfig { tmpfs: Some(BTreeMap::from([("/srv".to_owned(), "size=1m".to_owned())])), ..plain() };
    let (code, output) = world.run("ls /srv; grep ' /srv ' /proc/self/mounts", host).await;
    assert_eq!(code, 0);
    assert!(output.contains(" /srv tmpfs ") && output.contains("noexec"), "{output}");
}

async fn a_volume_in_use_stays(world: World) {
    let id = world.create("true", binds(&["data:/d"])).await;
    let error = world.engine.volume_remove("data", true).await.unwrap_err();
    assert_eq!(error.to_string(), format!("remove data: volume is in use - [{id}]"));
    world.engine.remove(&id, RemoveOptions { force: false, volumes: true }).await.unwrap();
    world.engine.volume_remove("data", false).await.unwrap();
    let error = world.engine.volume_remove("data", false).await.unwrap_err();
    assert!(matches!(error, EngineError::NoSuchVolume(_)), "{error}");
    world.engine.volume_remove("data", true).await.unwrap();
}

async fn a_refused_create_leaves_nothing(world: World) {
    let mut config = shell("true");
    config.volumes = Some([("/srv".to_owned(), Default::default())].into());
    let mount = Mount {
        kind: "volume".into(),
        source: "data".into(),
        target: "/x".into(),
        volume_options: Some(docker::VolumeOptions { subpath: "not/there".into(), ..Default::default() }),
        ..Default::default()
    };
    let request = ContainerCreateRequest {
        name: "web".into(),
        config,
        host_config: HostConfig { mounts: vec![mount], ..plain() },
        ..Default::default()
    };
    world.engine.create(request).await.unwrap_err();
    let names: Vec<_> = std::fs::read_dir(world.root.join("data/containers")).unwrap().collect();
    assert!(names.is_empty(), "{names:?}");
    let volumes = world.engine.volume_list(&Filters::default()).await.unwrap().volumes;
    assert_eq!(volumes.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["data"]);
    let again = ContainerCreateRequest {
        name: "web".into(),
        config: shell("true"),
        host_config: plain(),
        ..Default::default()
    };
    world.create_with(again).await;
    world.engine.images().remove("busybox", false).await.unwrap_err();
}

async fn a_volume_that_is_mounted_is_filled_in_place(world: World) {
    let first = world.create("while ! cat /empty/hello; do sleep 0.05; done", binds(&["data:/empty"])).await;
    let options = engine::AttachOptions { stdin: false, stdout: true, stderr: false };
    let mut attached = world.engine.attach(&first, options).await.unwrap();
    world.engine.start(&first).await.unwrap();
    world.create("true", binds(&["data:/srv"])).await;
    let (_, bytes) = attached.output.next().await.unwrap();
    assert_eq!(bytes, "hello from the image\n");
}

async fn another_containers_anonymous_volume_can_be_used(world: World) {
    let mut config = shell("echo mine > /srv/mine; rm /srv/hello");
    config.volumes = Some([("/srv".to_owned(), Default::default())].into());
    let request = ContainerCreateRequest { config, host_config: plain(), ..Default::default() };
    let owner = world.create_with(request).await;
    assert_eq!(world.run_created(&owner).await.0, 0);
    let host = HostConfig { volumes_from: Some(vec![owner.clone()]), ..plain() };
    let user = world.create("cat /srv/mine; ls /srv", host).await;
    assert_eq!(world.run_created(&user).await, (0, "mine\nmine\nsub\n".to_owned()));
    let with_volumes = RemoveOptions { force: false, volumes: true };
    world.engine.remove(&owner, with_volumes).await.unwrap();
    assert_eq!(world.run_created(&user).await.0, 0);
    world.engine.remove(&user, with_volumes).await.unwrap();
    assert!(world.engine.volume_list(&Filters::default()).await.unwrap().volumes.is_empty());
}

async fn a_subpath_does_not_leave_its_volume(world: World) {
    let secret = world.root.join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("key"), "key\n").unwrap();
    let script = format!(
        "mkdir /d/inside; echo mine > /d/inside/key; ln -s {} /d/out; ln -s /inside /d/in",
        secret.display()
    );
    assert_eq!(world.run(&script, binds(&["data:/d"])).await.0, 0);
    let request = |subpath: &str| {
        let mount = Mount {
            kind: "volume".into(),
            source: "data".into(),
            target: "/x".into(),
            volume_options: Some(docker::VolumeOptions { subpath: subpath.into(), ..Default::default() }),
            ..Default::default()
        };
        let host_config = HostConfig { mounts: vec![mount], ..plain() };
        ContainerCreateRequest { config: shell("cat /x/key"), host_config, ..Default::default() }
    };
    for subpath in ["inside", "in"] {
        let id = world.create_with(request(subpath)).await;
        assert_eq!(world.run_created(&id).await, (0, "mine\n".to_owned()));
    }
    let error = world.engine.create(request("out")).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot access path"), "{error}");
    // A link that is put there after the container was created leads nowhere either.
    let id = world.create_with(request("inside")).await;
    assert_eq!(
        world
            .run(&format!("mv /d/inside /d/old; ln -s {} /d/inside", secret.display()), binds(&["data:/d"]))
            .await
            .0,
        0
    );
    let error = world.engine.start(&id).await.unwrap_err();
    assert!(error.to_string().contains("no such file or directory"), "{error}");
}

async fn a_removal_that_fails_is_told_and_tried_again(world: World) {
    let id = world.create("true", HostConfig { auto_remove: true, ..plain() }).await;
    // A mount in the container's directory can't be removed.
    let busy = world.root.join("data/containers").join(&id).join("busy");
    std::fs::create_dir(&busy).unwrap();
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&busy).status().unwrap();
    assert!(mount.success());
    let waiter = world.engine.wait(&id, WaitCondition::Removed).await.unwrap();
    world.engine.start(&id).await.unwrap();
    let answer = waiter.finished().await;
    assert!(answer.error.unwrap().message.contains(&id));
    let waiter = world.engine.wait(&id, WaitCondition::Removed).await.unwrap();
    rustix::mount::unmount(&busy, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(waiter.finished().await.error.is_none());
    assert!(world.engine.state(&id).is_none());
}
