//! What measures MDL: a load of many users ([`load`], run by `mdl-load`), and the limits of a machine that its speed is held
//! against ([`floor`], run by `mdl-floor`). README.md tells how each figure is taken.

pub mod floor;
pub mod load;
