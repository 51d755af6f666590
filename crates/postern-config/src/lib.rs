//! The configuration file: types, reading, errors that name the nearest key.
