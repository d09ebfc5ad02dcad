//! Who may do what: from a caller's role to a permit.
