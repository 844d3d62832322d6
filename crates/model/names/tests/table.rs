//! Tables are read as they were written, and garbage is read without harm.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;

use names::{ReadTableError, Rows, View};
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rows() -> Rows {
    let mut rows = Rows::new("Backend");
    rows.add("db", ip("10.0.1.2"));
    rows.add("Tasks.db", ip("10.0.1.4"));
    rows.add("tasks.DB", ip("10.0.1.3"));
    rows.add("tasks.db", ip("fd00::3"));
    rows.add("tasks.db.", ip("10.0.1.3"));
    rows.add("", ip("10.0.1.9"));
    rows.add(&"n".repeat(256), ip("10.0.1.9"));
    rows.add_reverse(ip("10.0.1.3"), "Db.1.abc");
    rows.add_reverse(ip("10.0.1.3"), "late");
    rows.add_reverse(ip("fd00::3"), "db.1.abc");
    rows
}

fn found(view: &View<'_>, name: &str) -> Option<Vec<IpAddr>> {
    view.find(name.as_bytes()).map(|addresses| addresses.iter().collect())
}

#[test]
fn names_are_found_in_whatever_case_with_all_their_addresses() {
    let table = rows().to_table();
    let view = View::read(&table).unwrap();
    assert_eq!((view.network(), view.len()), (&b"Backend"[..], 2));
    assert_eq!(found(&view, "dB"), Some(vec![ip("10.0.1.2")]));
    let tasks = vec![ip("10.0.1.3"), ip("10.0.1.4"), ip("fd00::3")];
    assert_eq!(found(&view, "tasks.db"), Some(tasks.clone()));
    assert_eq!(rows().addresses("TASKS.db").collect::<Vec<_>>(), tasks);
    for unknown in ["", "d", "dbs", "tasks", "a", "z", "tasks.db."] {
        assert_eq!(found(&view, unknown), None, "{unknown}");
    }
}

#[test]
fn addresses_lead_back_to_the_first_name_that_claimed_them() {
    let table = rows().to_table();
    let view = View::read(&table).unwrap();
    assert_eq!(view.name_of(ip("10.0.1.3")), Some(&b"Db.1.abc"[..]));
    assert_eq!(view.name_of(ip("fd00::3")), Some(&b"db.1.abc"[..]));
    assert_eq!(view.name_of(ip("10.0.1.2")), None);
}

#[test]
fn equal_rows_are_equal_bytes_and_an_empty_table_is_one() {
    assert_eq!(rows().to_table(), rows().to_table());
    let empty = Rows::new("n").to_table();
    let view = View::read(&empty).unwrap();
    assert!(view.is_empty() && found(&view, "n").is_none() && view.name_of(ip("::1")).is_none());
}

#[test]
fn what_a_newer_daemon_adds_behind_is_ignored_and_another_format_is_refused() {
    let mut table = rows().to_table();
    table.extend(b"more");
    assert!(found(&View::read(&table).unwrap(), "db").is_some());
    table[8] = 2;
    assert_eq!(View::read(&table).unwrap_err(), ReadTableError::Format { found: 2 });
}

#[test]
fn a_table_that_ends_early_is_refused_or_gives_no_answer() {
    let table = rows().to_table();
    for length in 0..table.len() {
        if let Ok(view) = View::read(&table[..length]) {
            look(&view);
        }
    }
    assert_eq!(View::read(&table[..40]).unwrap_err(), ReadTableError::Malformed);
}

/// Everything that can be asked of a table.
fn look(view: &View<'_>) {
    for name in ["db", "tasks.db", "zzz", ""] {
        let _ = found(view, name);
    }
    let _ = (view.name_of(ip("10.0.1.3")), view.name_of(ip("fd00::3")), view.network(), view.len());
}

proptest! {
    #[test]
    fn everything_added_is_found_and_nothing_else(
        names in prop::collection::btree_map("[a-zA-Z0-9._-]{1,12}", prop::collection::vec(any::<u32>(), 1..4), 0..40),
        other in "[a-z]{1,3}",
    ) {
        let mut rows = Rows::new("net");
        for (name, addresses) in &names {
            for address in addresses {
                rows.add(name, IpAddr::from(address.to_be_bytes()));
                rows.add_reverse(IpAddr::from(address.to_be_bytes()), name);
            }
        }
        let table = rows.to_table();
        let view = View::read(&table).unwrap();
        for name in rows.names() {
            prop_assert_eq!(found(&view, &name.to_uppercase()).unwrap(), rows.addresses(name).collect::<Vec<_>>());
        }
        for address in names.values().flatten() {
            prop_assert!(view.name_of(IpAddr::from(address.to_be_bytes())).is_some());
        }
        prop_assert_eq!(found(&view, &other).is_some(), rows.addresses(&other).next().is_some());
    }

    #[test]
    fn damaged_tables_do_no_harm(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        length in any::<prop::sample::Index>(),
    ) {
        let mut table = rows().to_table();
        for (place, byte) in damage {
            let place = place.index(table.len());
            table[place] = byte;
        }
        table.truncate(length.index(table.len() + 1));
        if let Ok(view) = View::read(&table) {
            look(&view);
        }
    }

    #[test]
    fn garbage_with_a_good_header_does_no_harm(
        counts in prop::array::uniform4(0u32..200),
        rest in prop::collection::vec(any::<u8>(), 0..4000),
    ) {
        let mut table = b"skepname\x01\0\0\0".to_vec();
        table.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
        table.extend([0; 4]);
        table.extend(rest);
        if let Ok(view) = View::read(&table) {
            look(&view);
        }
    }
}
