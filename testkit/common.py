"""What the tests of one daemon and those of several machines share."""
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
import time


def until(condition, seconds=20.0, what="condition"):
    """Polls `condition` and returns its first true value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not in time ({seconds} s): {what}")
        time.sleep(0.02)


def busybox_tar(path):
    """A root filesystem of static busybox with the users that tests need."""
    root = pathlib.Path(tempfile.mkdtemp(dir=path))
    for folder in ("bin", "dev", "etc", "proc", "sys", "tmp", "data", "root"):
        (root / folder).mkdir()
    shutil.copy("/usr/bin/busybox", root / "bin/busybox")
    applets = subprocess.run(["/usr/bin/busybox", "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1001:g:/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nguest:x:1001:\nextra:x:1002:guest\n")
    (root / "data/seed").write_text("seed\n")
    (root / "bin/notexec").write_text("x")
    tar = pathlib.Path(path) / "busybox.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(root, ".")
    shutil.rmtree(root)
    return tar
