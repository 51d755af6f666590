//! Where a command runs: backends, the client's end of the agent protocol, exit codes.
