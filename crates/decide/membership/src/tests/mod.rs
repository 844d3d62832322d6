//! Tests of the failure detector, of roles and of leaving.

mod leases;
mod leave;
mod roles;
