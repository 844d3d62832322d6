//! Users, groups and homes.

use crate::Test;
use crate::bed::{Bed, chain, succeeded};

pub(crate) const TESTS: &[Test] = &[
    ("users_are_resolved_in_the_container", users_are_resolved_in_the_container),
    ("unknown_users_are_refused", unknown_users_are_refused),
    ("home_is_set_unless_given", home_is_set_unless_given),
    ("another_user_may_open_its_streams_anew", another_user_may_open_its_streams_anew),
    ("a_hostile_passwd_does_not_block", a_hostile_passwd_does_not_block),
];

fn users_are_resolved_in_the_container(bed: &Bed) {
    for (user, groups, expect) in [
        ("", &[][..], "uid=0 gid=0 groups=0\n"),
        ("web", &[], "uid=33 gid=34 groups=34,44\n"),
        ("33:0", &[], "uid=33 gid=0 groups=0\n"),
        ("1234:5678", &[], "uid=1234 gid=5678 groups=5678\n"),
        ("web", &["99", "root"], "uid=33 gid=34 groups=0,34,44,99\n"),
    ] {
        let mut spec = bed.spec("id | sed 's/([a-z]*)//g'");
        spec.process.user = user.into();
        spec.process.groups = groups.iter().map(ToString::to_string).collect();
        assert_eq!(succeeded(bed.run(&spec)), expect, "{user}");
    }
}

fn unknown_users_are_refused(bed: &Bed) {
    let mut spec = bed.spec("true");
    spec.process.user = "foo".into();
    assert_eq!(chain(&bed.refusal(&spec)), "unable to find user foo: no matching entries in passwd file");
}

fn home_is_set_unless_given(bed: &Bed) {
    let mut spec = bed.spec("echo $HOME");
    spec.process.user = "web".into();
    assert_eq!(succeeded(bed.run(&spec)), "/var/www\n");
    spec.process.env.push("HOME=/own".into());
    assert_eq!(succeeded(bed.run(&spec)), "/own\n");
}

fn another_user_may_open_its_streams_anew(bed: &Bed) {
    let mut spec = bed.spec("echo x > /dev/stdout; echo y > /proc/self/fd/2");
    spec.process.user = "web".into();
    let ended = bed.run(&spec);
    assert_eq!((ended.code, &*ended.out, &*ended.err), (0, "x\n", "y\n"));
}

fn a_hostile_passwd_does_not_block(bed: &Bed) {
    // No `id` here: it would read the file itself, and wait.
    let mut spec = bed.spec("");
    spec.process.args = ["grep", "^Uid", "/proc/self/status"].map(ToOwned::to_owned).to_vec();
    std::fs::create_dir(spec.root.upper.join("etc")).unwrap();
    let path = spec.root.upper.join("etc/passwd");
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, rustix::fs::Mode::from(0o666), 0).unwrap();
    spec.process.user = "7".into();
    assert_eq!(succeeded(bed.run(&spec)), "Uid:\t7\t7\t7\t7\n");
}
