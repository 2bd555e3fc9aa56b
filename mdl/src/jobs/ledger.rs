//! What the relay and the worker write to the ledger.
