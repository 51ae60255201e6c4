//! Kept PTX, compiled by the driver for its device.
#![expect(unsafe_code, reason = "calls into the driver's C library")]

use crate::driver::failed;
use crate::launcher::DeviceError;
use cudarc::driver::{result, sys};
use std::ffi::{CString, c_void};

/// Bytes of what the driver says about PTX it does not take.
const LOG_BYTES: usize = 8 << 10;

/// Compiles one file; gives its module's address.
pub(crate) fn compile(context: usize, file: &str, ptx: &str) -> Result<usize, DeviceError> {
    let text = CString::new(ptx).map_err(|_| DeviceError::Unsupported(format!("{file}.ptx holds a zero byte")))?;
    let mut log = vec![0u8; LOG_BYTES];
    use sys::CUjit_option_enum as Jit;
    let mut options = [Jit::CU_JIT_ERROR_LOG_BUFFER, Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    // The driver takes a number where it wants one in place of a pointer.
    let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG_BYTES as *mut c_void];
    let mut module = std::ptr::null_mut();
    // SAFETY: the context is retained by the driver that waits for this thread; text (which ends with a zero byte), log,
    // options and values live through the call.
    let made = unsafe {
        result::ctx::set_current(context as sys::CUcontext).map_err(|error| failed("entering the context", error))?;
        let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
        sys::cuModuleLoadDataEx(&mut module, text.as_ptr().cast(), 2, options, values).result()
    };
    made.map_err(|error| {
        let said = String::from_utf8_lossy(&log);
        failed(&format!("compiling {file}.ptx ({})", said.trim_matches(['\0', '\n', ' '])), error)
    })?;
    Ok(module as usize)
}
