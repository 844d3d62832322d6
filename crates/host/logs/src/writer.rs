//! Turns a container's output into log lines.
//!
//! In: bytes as they come out of the two streams. Out: lines in a json-file log, or nothing for `none`. A line longer than
//! 16 KiB is split as dockerd splits it. Never fails and never waits: output must not stop because a disk is full.

use objects::Timestamp;

use crate::encode::Encoder;
use crate::file::{LogFile, OpenLogError};
use crate::spec::{LogSpec, OutputStream};

/// Longest line in one entry. Source: moby, `daemon/logger/copier.go` (`defaultBufSize`).
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// Room that is kept for the beginning of a line between two reads. Chosen: prompts and most lines fit.
const KEPT_PARTIAL_BYTES: usize = 1024;

/// Writes one container's log.
#[derive(Debug)]
pub struct Writer {
    sink: Option<Sink>,
}

#[derive(Debug)]
struct Sink {
    file: LogFile,
    encoder: Encoder,
    /// The beginning of a line whose end hasn't come yet, per stream.
    begun: [Vec<u8>; 2],
    /// Time of the last entry: entries of one log have different times, in order.
    last_nanos: i64,
}

impl Writer {
    /// Opens the log, which may hold lines of an earlier run.
    pub fn open(spec: &LogSpec) -> Result<Self, OpenLogError> {
        let LogSpec::JsonFile(spec) = spec else { return Ok(Self { sink: None }) };
        let sink = Sink {
            file: LogFile::open(spec)?,
            encoder: Encoder::new(&spec.attrs),
            begun: [Vec::new(), Vec::new()],
            last_nanos: i64::MIN,
        };
        Ok(Self { sink: Some(sink) })
    }

    /// Takes what one read returned; complete lines are in the file when this returns.
    pub fn write(&mut self, stream: OutputStream, bytes: &[u8], now: Timestamp) {
        if let Some(sink) = &mut self.sink {
            sink.take(stream, bytes, now.0);
            sink.file.flush();
        }
    }

    /// Writes lines that ended without a newline. The writer may be used further.
    pub fn finish(&mut self, now: Timestamp) {
        let Some(sink) = &mut self.sink else { return };
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let begun = std::mem::take(&mut sink.begun[stream as usize]);
            if !begun.is_empty() {
                sink.emit(stream, &begun, now.0);
            }
        }
        sink.file.flush();
    }

    /// Lines that could not be written so far.
    pub fn dropped(&self) -> u64 {
        self.sink.as_ref().map_or(0, |sink| sink.file.dropped())
    }
}

impl Sink {
    fn take(&mut self, stream: OutputStream, mut bytes: &[u8], nanos: i64) {
        while !bytes.is_empty() {
            let begun = &mut self.begun[stream as usize];
            let room = MAX_LINE_BYTES - begun.len();
            let window = &bytes[..room.min(bytes.len())];
            let newline = window.iter().position(|&byte| byte == b'\n');
            let is_full = newline.is_none() && window.len() == room;
            let count = newline.map_or(window.len(), |at| at + 1);
            let (piece, rest) = bytes.split_at(count);
            bytes = rest;
            if newline.is_none() && !is_full {
                begun.extend_from_slice(piece);
            } else if begun.is_empty() && !is_full {
                self.emit(stream, piece, nanos);
            } else {
                self.emit_begun(stream, piece, nanos);
            }
        }
    }

    /// Ends the line that was begun with `piece`. One that is only cut because it is long keeps the first bytes of a
    /// character that is cut in two for its next entry: each entry is valid text for itself.
    fn emit_begun(&mut self, stream: OutputStream, piece: &[u8], nanos: i64) {
        let mut line = std::mem::take(&mut self.begun[stream as usize]);
        line.extend_from_slice(piece);
        let whole = line.len() - cut_character(&line);
        self.emit(stream, &line[..whole], nanos);
        line.drain(..whole);
        line.shrink_to(KEPT_PARTIAL_BYTES);
        self.begun[stream as usize] = line;
    }

    fn emit(&mut self, stream: OutputStream, line: &[u8], nanos: i64) {
        let nanos = nanos.max(self.last_nanos.saturating_add(1));
        self.last_nanos = nanos;
        let encoder = &mut self.encoder;
        self.file.append(|out| encoder.append(stream, line, nanos, out));
    }
}

/// How many bytes at the end are the beginning of a UTF-8 character that isn't complete: 0 to 3.
fn cut_character(line: &[u8]) -> usize {
    for (count, &byte) in line.iter().rev().take(3).enumerate() {
        let wanted = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => 0,
        };
        return if wanted > count + 1 { count + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::entry::parse;
    use crate::file::rotated_path;
    use crate::spec::JsonFileSpec;

    fn spec(dir: &Path, max_size: Option<u64>, max_files: u32) -> LogSpec {
        let path = dir.join("c-json.log");
        LogSpec::JsonFile(JsonFileSpec { path, max_size, max_files, attrs: BTreeMap::new() })
    }

    fn lines(path: &Path) -> Vec<Vec<u8>> {
        let text = fs::read(path).unwrap();
        text.split_inclusive(|&byte| byte == b'\n')
            .map(|line| parse(line).expect("a whole line").line)
            .collect()
    }

    #[test]
    fn lines_are_cut_only_where_dockerd_cuts_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(&spec(dir.path(), None, 1)).unwrap();
        let long = [b'x'; MAX_LINE_BYTES];
        writer.write(OutputStream::Stdout, b"one\ntwo\nthr", Timestamp(1));
        writer.write(OutputStream::Stderr, b"other\n", Timestamp(2));
        writer.write(OutputStream::Stdout, b"ee\n", Timestamp(3));
        writer.write(OutputStream::Stdout, &long, Timestamp(4));
        writer.write(OutputStream::Stdout, b"\n", Timestamp(5));
        writer.write(OutputStream::Stdout, &long[1..], Timestamp(6));
        writer.write(OutputStream::Stdout, b"\nend", Timestamp(7));
        writer.finish(Timestamp(8));
        let mut short = long[1..].to_vec();
        short.push(b'\n');
        let expected: [&[u8]; 8] = [b"one\n", b"two\n", b"other\n", b"three\n", &long, b"\n", &short, b"end"];
        assert_eq!(lines(&dir.path().join("c-json.log")), expected);
    }

    #[test]
    fn a_long_line_is_never_cut_inside_a_character() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(&spec(dir.path(), None, 1)).unwrap();
        let text = "€".repeat(MAX_LINE_BYTES);
        for chunk in text.as_bytes().chunks(1000) {
            writer.write(OutputStream::Stdout, chunk, Timestamp(1));
        }
        writer.finish(Timestamp(1));
        let lines = lines(&dir.path().join("c-json.log"));
        assert!(lines.iter().all(|line| line.len() <= MAX_LINE_BYTES && str::from_utf8(line).is_ok()));
        assert_eq!(lines.concat(), text.as_bytes());
    }

    #[test]
    fn times_never_repeat_or_go_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(&spec(dir.path(), None, 1)).unwrap();
        writer.write(OutputStream::Stdout, b"a\nb\n", Timestamp(1_000));
        writer.write(OutputStream::Stderr, b"c\n", Timestamp(10));
        let text = fs::read(dir.path().join("c-json.log")).unwrap();
        let times: Vec<_> =
            text.split_inclusive(|&b| b == b'\n').map(|line| parse(line).unwrap().time.0).collect();
        assert_eq!(times, [1_000, 1_001, 1_002]);
    }

    #[test]
    fn a_log_rotates_when_it_is_full_and_keeps_so_many_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(&spec(dir.path(), Some(200), 3)).unwrap();
        for number in 0..12 {
            writer.write(OutputStream::Stdout, format!("line {number}\n").as_bytes(), Timestamp(number));
        }
        let path = dir.path().join("c-json.log");
        let kept: Vec<_> = (0..3).rev().flat_map(|index| lines(&rotated_path(&path, index))).collect();
        assert_eq!(kept.last().unwrap(), b"line 11\n");
        assert_eq!(kept.len(), 9, "three files of three lines each");
        assert!(!rotated_path(&path, 3).exists());
    }

    #[test]
    fn one_file_starts_anew_when_it_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(&spec(dir.path(), Some(100), 1)).unwrap();
        writer.write(OutputStream::Stdout, b"a\nb\nc\n", Timestamp(1));
        assert_eq!(lines(&dir.path().join("c-json.log")), [b"c\n"]);
        assert!(!dir.path().join("c-json.log.1").exists());
    }

    #[test]
    fn half_a_line_of_an_earlier_writer_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c-json.log");
        fs::write(&path, "{\"log\":\"to").unwrap();
        let mut writer = Writer::open(&spec(dir.path(), None, 1)).unwrap();
        writer.write(OutputStream::Stdout, b"next\n", Timestamp(1));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"log\":\"to\n{\"log\":\"next\\n\""), "{text}");
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let spec =
            JsonFileSpec { path: "/dev/full".into(), max_size: None, max_files: 1, attrs: BTreeMap::new() };
        let mut file = LogFile::open(&spec).unwrap();
        for _ in 0..3 {
            file.append(|out| out.extend_from_slice(b"line\n"));
        }
        file.flush();
        assert_eq!(file.dropped(), 3);
    }
}
