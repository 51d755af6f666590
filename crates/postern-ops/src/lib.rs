//! The ops pod: desired objects, install, show, uninstall, audit.
