//! Parts of glibc that a static program would carry for nothing.
//!
//! The agent travels into other people's containers, and 400 KiB of glibc served what it never does: printing and
//! scanning as C does, in wide characters too, converting between character sets, loading code at run time, looking up
//! names. Each of these functions is one by which such a part would be linked. The linker prefers them
//! (`--allow-multiple-definition`), so that a glibc that is arranged in another way costs room, and no build.
#![cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
#![allow(unsafe_code, reason = "what the C library calls has to be exported by name")]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::process::abort;
use std::ptr::null_mut;

/// Finds a symbol at run time. A static program has none to find; Rust's library asks for optional functions.
// SAFETY: the signature of dlsym(3), which may answer so to any name.
#[unsafe(no_mangle)]
extern "C" fn dlsym(_handle: *mut c_void, _name: *const c_char) -> *mut c_void {
    null_mut()
}

/// Says where a thread's stack lies, by scanning /proc. Rust's library words an overflow of it so, and does without.
// SAFETY: the signature of pthread_getattr_np(3), which may fail and then has set nothing.
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(_thread: libc::pthread_t, _attributes: *mut libc::pthread_attr_t) -> c_int {
    libc::ENOSYS
}

/// Names a thread, for who looks at the process.
// SAFETY: the signature of pthread_setname_np(3).
#[unsafe(no_mangle)]
extern "C" fn pthread_setname_np(_thread: libc::pthread_t, _name: *const c_char) -> c_int {
    0
}

/// Prints the allocator's statistics, which nobody asks for.
// SAFETY: callers pass more arguments; in the C conventions of our architectures the caller clears them away.
#[unsafe(no_mangle)]
extern "C" fn fprintf(_stream: *mut c_void, _format: *const c_char) -> c_int {
    -1
}

unsafe extern "C" {
    /// glibc's: an error's words as they stand, or null for a number that is none.
    safe fn strerrordesc_np(number: c_int) -> *const c_char;
}

/// Words an error, without looking for a translation; strerror_r(3) is made of it.
// SAFETY: the signature of glibc's function, whose answer may be a string that lives for ever, and is never null.
#[unsafe(no_mangle)]
extern "C" fn __strerror_r(number: c_int, _buffer: *mut c_char, _size: usize) -> *const c_char {
    let words = strerrordesc_np(number);
    if words.is_null() { c"unknown error".as_ptr() } else { words }
}

/// Says which assumption of glibc's does not hold, and ends the process.
// SAFETY: the signature of glibc's function, which does not return either.
#[unsafe(no_mangle)]
extern "C" fn __assert_fail(
    _assertion: *const c_char,
    _file: *const c_char,
    _line: c_uint,
    _function: *const c_char,
) -> ! {
    abort()
}

/// Says which index of a list of glibc's own is none, and ends the process.
// SAFETY: the signature of glibc's function, which does not return either.
#[unsafe(no_mangle)]
extern "C" fn __libc_dynarray_at_failure(_size: usize, _index: usize) -> ! {
    abort()
}

/// Says which size of a buffer of glibc's own is none, and ends the process.
// SAFETY: the signature of glibc's function, which does not return either.
#[unsafe(no_mangle)]
extern "C" fn __libc_alloc_buffer_create_failure(_start: *mut c_void, _size: usize) -> ! {
    abort()
}

/// Reads the resolver's configuration. Here and in the two below: no name is ever looked up.
// SAFETY: the signature of glibc's function, which may fail and then has set nothing.
#[unsafe(no_mangle)]
extern "C" fn __res_vinit(_state: *mut c_void, _again: c_int) -> c_int {
    -1
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn __res_ninit(_state: *mut c_void) -> c_int {
    -1
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn __resolv_conf_load(_preinit: *mut c_void, _change: *mut c_void) -> *mut c_void {
    null_mut()
}

/// How wide characters become bytes in the C locale. Here and in those below: nothing is written in wide characters.
#[unsafe(no_mangle)]
static __wcsmbs_gconv_fcts_c: [usize; 4] = [0; 4];

// SAFETY: the signature of glibc's function; only what reads wide characters looks at what it would set.
#[unsafe(no_mangle)]
extern "C" fn __wcsmbs_load_conv(_locale: *mut c_void) {}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn __wcsmbs_clone_conv(_copy: *mut c_void) {}

// SAFETY: the signature of glibc's function, which may fail and then has set nothing.
#[unsafe(no_mangle)]
extern "C" fn __wcsmbs_named_conv(_copy: *mut c_void, _name: *const c_char) -> c_int {
    -1
}

// SAFETY: the signature of glibc's function; there is nothing to free.
#[unsafe(no_mangle)]
extern "C" fn _nl_cleanup_ctype(_locale: *mut c_void) {}
