//! Benchmarks against real daemons, through their API: see `benches/`. It depends on nothing, so that it is built in no time
//! whatever it drives.
