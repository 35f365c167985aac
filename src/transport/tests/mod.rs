//! Tests of the transports as a whole; those of one file stand in it.

mod faces;
mod hostile;
mod peers;
mod reading;
mod referrers;
mod writing;
