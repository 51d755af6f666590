//! The cluster's door: client, apply, wait, exec streams, logs, events, access reviews.
