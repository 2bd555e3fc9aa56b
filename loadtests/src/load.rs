//! Many users at work: a fixed rate of arrivals, a realistic mix of what they ask for, and a judgement.
//!
//! [`Profile`] says how the rate goes and what has to be kept, [`timetable`] when each user sends something, [`mix`] what.
//! goose runs the users and writes the HTML report.

pub mod catalog;
pub mod mix;
pub mod profile;
pub mod tally;
pub mod timetable;
pub mod users;

pub use profile::Profile;
