//! What the executor needs of a device: memory, copies, launches, recorded series of launches. The driver is one; the
//! tests run the same kernels on the processor through another.

use crate::kernel::Kernel;

/// Why a device could not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no driver, or no device.
    #[error("no CUDA device: {0}")]
    Absent(String),
    /// Memory ran out.
    #[error("the device has no {0} bytes of memory left")]
    Memory(usize),
    /// The driver reported an error.
    #[error("the CUDA driver failed at {doing}: {message}")]
    Driver {
        /// What was being done.
        doing: String,
        /// Its words.
        message: String,
    },
    /// The model or batch is beyond what the kernels take.
    #[error("{0}")]
    Unsupported(String),
}

/// A piece of device memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Buffer {
    /// First byte's address on the device, a multiple of 16.
    pub address: u64,
    /// Length in bytes.
    pub bytes: usize,
}

/// One launch: kernel, grid, dynamic shared memory, and the argument structure's bytes.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Which.
    pub kernel: Kernel,
    /// Blocks in x, y and z; none may be 0.
    pub grid: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// One structure of [`crate::arguments`].
    pub arguments: Vec<u8>,
}

/// A device. Everything happens in the order of the calls, except [`Launcher::write_aside`].
///
/// Addresses in launches and copies lie inside buffers of [`Launcher::alloc`] that have not been freed: kernels trust
/// their arguments, as they must. The executor is the only caller.
pub trait Launcher {
    /// Name of the device.
    fn name(&self) -> String;

    /// Free and total bytes of memory.
    fn memory(&self) -> Result<(usize, usize), DeviceError>;

    /// The most dynamic shared memory a block may ask for, in bytes.
    fn shared_max(&self) -> u32;

    /// Memory of `bytes` bytes, which is not 0; contents are unspecified.
    fn alloc(&mut self, bytes: usize) -> Result<Buffer, DeviceError>;

    /// Gives memory back, once all work before has been done.
    fn free(&mut self, buffer: Buffer);

    /// Copies to the device.
    fn write(&mut self, to: u64, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Copies to the device beside the work under way; [`Launcher::join_aside`] orders what follows after it.
    fn write_aside(&mut self, to: u64, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Whatever is launched later waits for copies aside.
    fn join_aside(&mut self) -> Result<(), DeviceError>;

    /// Copies from the device, after all work before.
    fn read(&mut self, from: u64, bytes: &mut [u8]) -> Result<(), DeviceError>;

    /// Runs a kernel.
    fn launch(&mut self, launch: Launch) -> Result<(), DeviceError>;

    /// Starts recording launches instead of running them.
    fn record(&mut self) -> Result<(), DeviceError>;

    /// Ends recording; the series is kept under `key`.
    fn keep(&mut self, key: u64) -> Result<(), DeviceError>;

    /// Runs a kept series, if there is one of that key.
    fn replay(&mut self, key: u64) -> Result<bool, DeviceError>;

    /// Forgets all kept series.
    fn forget(&mut self);

    /// Waits for all work and gives the time since the last call of `mark`, in seconds.
    fn seconds(&mut self) -> Result<f64, DeviceError>;

    /// The start of a measurement.
    fn mark(&mut self) -> Result<(), DeviceError>;
}

impl<L: Launcher> Launcher for &mut L {
    fn name(&self) -> String {
        L::name(self)
    }
    fn memory(&self) -> Result<(usize, usize), DeviceError> {
        L::memory(self)
    }
    fn shared_max(&self) -> u32 {
        L::shared_max(self)
    }
    fn alloc(&mut self, bytes: usize) -> Result<Buffer, DeviceError> {
        L::alloc(self, bytes)
    }
    fn free(&mut self, buffer: Buffer) {
        L::free(self, buffer);
    }
    fn write(&mut self, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        L::write(self, to, bytes)
    }
    fn write_aside(&mut self, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        L::write_aside(self, to, bytes)
    }
    fn join_aside(&mut self) -> Result<(), DeviceError> {
        L::join_aside(self)
    }
    fn read(&mut self, from: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        L::read(self, from, bytes)
    }
    fn launch(&mut self, launch: Launch) -> Result<(), DeviceError> {
        L::launch(self, launch)
    }
    fn record(&mut self) -> Result<(), DeviceError> {
        L::record(self)
    }
    fn keep(&mut self, key: u64) -> Result<(), DeviceError> {
        L::keep(self, key)
    }
    fn replay(&mut self, key: u64) -> Result<bool, DeviceError> {
        L::replay(self, key)
    }
    fn forget(&mut self) {
        L::forget(self);
    }
    fn seconds(&mut self) -> Result<f64, DeviceError> {
        L::seconds(self)
    }
    fn mark(&mut self) -> Result<(), DeviceError> {
        L::mark(self)
    }
}
