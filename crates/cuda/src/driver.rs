//! NVIDIA's driver, found at run time.
#![expect(unsafe_code, reason = "calls into the driver's C library")]

use crate::compile::compile;
use crate::kernel::{ALL, Kernel, PTX};
use crate::launcher::{Buffer, DeviceError, Launch, Launcher};
use crate::staging::Staging;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::thread::{Builder, ScopedJoinHandle};

/// Set, every kernel is waited for, so that an error names the kernel: for whoever looks for a defect.
const WAIT_VARIABLE: &str = "LOCKSTEP_CUDA_WAIT";

/// Stack of a thread that the driver's compiler runs on: it is written for a main thread's, and 2 MiB may not do.
const COMPILER_STACK: usize = 64 << 20;

/// The oldest driver the kept PTX is for: CUDA 12.0, driver 525.
const VERSION_MIN: i32 = 12_000;

/// One device.
pub struct Driver {
    name: String,
    context: sys::CUcontext,
    device: sys::CUdevice,
    stream: sys::CUstream,
    aside: sys::CUstream,
    aside_done: sys::CUevent,
    marked: sys::CUevent,
    ended: sys::CUevent,
    staging: Staging,
    aside_staging: Staging,
    modules: Vec<sys::CUmodule>,
    functions: HashMap<&'static str, sys::CUfunction>,
    series: HashMap<u64, sys::CUgraphExec>,
    shared_max: u32,
    waits: bool,
}

// SAFETY: contexts, streams and modules may be used from any thread as long as the context is made current there, which
// every method does; nothing is shared between threads because every method that uses the device takes `&mut self` or
// only reads constants.
unsafe impl Send for Driver {}

pub(crate) fn failed(doing: &str, error: DriverError) -> DeviceError {
    DeviceError::Driver { doing: doing.to_owned(), message: format!("{error:?}") }
}

impl Driver {
    /// Whether NVIDIA's driver is on this machine, whatever devices it has.
    pub fn is_present() -> bool {
        // SAFETY: only looks for the library.
        unsafe { sys::is_culib_present() }
    }

    /// Device number `ordinal`, its kernels compiled by the driver.
    ///
    /// # Errors
    /// There is no driver or no such device, it is too old, or the driver fails: the message says which.
    pub fn open(ordinal: usize) -> Result<Driver, DeviceError> {
        let absent = |what: String| DeviceError::Absent(what);
        if !Driver::is_present() {
            return Err(absent("NVIDIA's driver library (libcuda) is not on this machine".to_owned()));
        }
        let mut version = 0;
        // SAFETY: writes one integer; may be called before initialisation.
        let found = unsafe { sys::cuDriverGetVersion(&mut version) };
        if found.result().is_err() || version < VERSION_MIN {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            return Err(absent(format!(
                "the driver is for CUDA {major}.{minor}; it must be 525 or newer, for CUDA 12.0"
            )));
        }
        result::init().map_err(|error| absent(format!("the driver found none ({error:?})")))?;
        let count = result::device::get_count().map_err(|error| failed("counting devices", error))?;
        if ordinal >= count.max(0) as usize {
            return Err(absent(format!("there is no device {ordinal}: the driver found {count}")));
        }
        let device = result::device::get(ordinal as i32).map_err(|error| failed("opening the device", error))?;
        let attribute = |which| {
            // SAFETY: the device comes from the driver.
            unsafe { result::device::get_attribute(device, which) }.map_err(|error| failed("asking the device", error))
        };
        use sys::CUdevice_attribute_enum as Attribute;
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let name = result::device::get_name(device).map_err(|error| failed("asking the device's name", error))?;
        if major < 8 {
            return Err(absent(format!("{name} has compute capability {major}.{minor}; 8.0 or newer is needed")));
        }
        let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        // SAFETY: the device comes from the driver; the context is released when `Driver` is dropped.
        let context =
            unsafe { result::primary_ctx::retain(device) }.map_err(|error| failed("making a context", error))?;
        let mut driver = Driver::on(context, device).inspect_err(|_| {
            // SAFETY: retained above, used by nobody any more.
            let _ = unsafe { result::primary_ctx::release(device) };
        })?;
        driver.name = name;
        // Some of it is the kernels' own static memory.
        driver.shared_max = (shared - 2048).max(0) as u32;
        driver.load()?;
        Ok(driver)
    }

    fn on(context: sys::CUcontext, device: sys::CUdevice) -> Result<Driver, DeviceError> {
        // SAFETY: the context has been retained.
        unsafe { result::ctx::set_current(context) }.map_err(|error| failed("entering the context", error))?;
        let stream = || {
            result::stream::create(result::stream::StreamKind::NonBlocking)
                .map_err(|error| failed("making a stream", error))
        };
        let event = |flags| result::event::create(flags).map_err(|error| failed("making an event", error));
        use sys::CUevent_flags as Flags;
        Ok(Driver {
            name: String::new(),
            context,
            device,
            stream: stream()?,
            aside: stream()?,
            aside_done: event(Flags::CU_EVENT_DISABLE_TIMING)?,
            marked: event(Flags::CU_EVENT_DEFAULT)?,
            ended: event(Flags::CU_EVENT_DEFAULT)?,
            staging: Staging::new(1 << 20)?,
            aside_staging: Staging::new(16 << 20)?,
            modules: Vec::new(),
            functions: HashMap::new(),
            series: HashMap::new(),
            shared_max: 0,
            waits: std::env::var_os(WAIT_VARIABLE).is_some(),
        })
    }

    /// Lets the driver compile the kernels for this device, each file on a thread; it keeps the result on disk for the next
    /// start.
    fn load(&mut self) -> Result<(), DeviceError> {
        let context = self.context as usize;
        let compiled: Vec<Result<usize, DeviceError>> = std::thread::scope(|scope| {
            let begin = |(file, ptx): &'static (&str, &str)| {
                let thread = Builder::new().stack_size(COMPILER_STACK);
                thread.spawn_scoped(scope, move || compile(context, file, ptx))
            };
            let threads: Vec<_> = PTX.iter().map(begin).collect();
            let broke_off = || DeviceError::Unsupported("compiling the kernels broke off".to_owned());
            let end = |thread: std::io::Result<ScopedJoinHandle<'_, _>>| match thread {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err(broke_off())),
                Err(error) => Err(DeviceError::Unsupported(format!("a thread to compile kernels on: {error}"))),
            };
            threads.into_iter().map(end).collect()
        });
        // All that were made are kept before the first failure is told: dropping the driver unloads them.
        self.modules.extend(compiled.iter().flatten().map(|module| *module as sys::CUmodule));
        for ((file, _), compiled) in PTX.iter().zip(compiled) {
            let module = compiled? as sys::CUmodule;
            for kernel in ALL.iter().filter(|kernel| kernel.file == *file) {
                self.functions.insert(kernel.name, self.function(module, kernel)?);
            }
        }
        Ok(())
    }

    /// A kernel, allowed all shared memory it does not use statically.
    fn function(&self, module: sys::CUmodule, kernel: &Kernel) -> Result<sys::CUfunction, DeviceError> {
        let doing = format!("loading kernel {}", kernel.name);
        let fail = |error| failed(&doing, error);
        let name = CString::new(kernel.name).map_err(|_| DeviceError::Unsupported(doing.clone()))?;
        use sys::CUfunction_attribute_enum as Attribute;
        // SAFETY: the module has been loaded and is kept until the driver is dropped.
        unsafe {
            let function = result::module::get_function(module, name).map_err(fail)?;
            let own =
                result::function::get_function_attribute(function, Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
            let most = self.shared_max as i32 + 2048 - own.map_err(fail)?;
            let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            result::function::set_function_attribute(function, attribute, most).map_err(fail)?;
            Ok(function)
        }
    }

    fn enter(&self) -> Result<(), DeviceError> {
        // SAFETY: the context is retained until the driver is dropped.
        unsafe { result::ctx::set_current(self.context) }.map_err(|error| failed("entering the context", error))
    }

    fn wait(&self) -> Result<(), DeviceError> {
        // SAFETY: the stream lives until the driver is dropped.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|error| failed("waiting for the device", error))
    }
}

impl Launcher for Driver {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn memory(&self) -> Result<(usize, usize), DeviceError> {
        self.enter()?;
        result::mem_get_info().map_err(|error| failed("asking for free memory", error))
    }

    fn shared_max(&self) -> u32 {
        self.shared_max
    }

    fn alloc(&mut self, bytes: usize) -> Result<Buffer, DeviceError> {
        self.enter()?;
        // SAFETY: contents are unspecified, as the trait says; kernels write before they read.
        match unsafe { result::malloc_sync(bytes) } {
            Ok(address) => Ok(Buffer { address, bytes }),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(DeviceError::Memory(bytes)),
            Err(error) => Err(failed("taking memory", error)),
        }
    }

    fn free(&mut self, buffer: Buffer) {
        // Copies aside too: what is given up may have been on its way.
        // SAFETY: the stream lives until the driver is dropped.
        let aside = || unsafe { result::stream::synchronize(self.aside) };
        if self.enter().is_ok() && self.wait().is_ok() && aside().is_ok() {
            // SAFETY: the buffer came from `alloc`, and all work before has ended.
            let _ = unsafe { result::free_sync(buffer.address) };
        }
    }

    fn write(&mut self, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.enter()?;
        self.staging.write(self.stream, to, bytes)
    }

    fn write_aside(&mut self, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.enter()?;
        self.aside_staging.write(self.aside, to, bytes)
    }

    fn join_aside(&mut self) -> Result<(), DeviceError> {
        self.enter()?;
        let wait = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: event and streams live until the driver is dropped.
        unsafe {
            result::event::record(self.aside_done, self.aside)
                .and_then(|()| result::stream::wait_event(self.stream, self.aside_done, wait))
        }
        .map_err(|error| failed("joining the copies", error))
    }

    fn read(&mut self, from: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.enter()?;
        // SAFETY: the source lies in a buffer, as the trait says; the wait ends before `bytes` is used.
        unsafe { result::memcpy_dtoh_async(bytes, from, self.stream) }.map_err(|error| failed("reading", error))?;
        self.wait()
    }

    fn launch(&mut self, launch: Launch) -> Result<(), DeviceError> {
        self.enter()?;
        let doing = format!("launching {}", launch.kernel.name);
        let Some(function) = self.functions.get(launch.kernel.name) else {
            return Err(DeviceError::Unsupported(doing));
        };
        let [x, y, z] = launch.grid;
        // The driver reads a structure of 64-bit fields.
        let mut arguments = vec![0u64; launch.arguments.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut arguments)[..launch.arguments.len()]
            .copy_from_slice(&launch.arguments);
        let mut pointers = [arguments.as_mut_ptr().cast::<c_void>()];
        // SAFETY: the one argument is the structure the kernel takes (kernel and arguments are paired in this crate, and
        // a test compares the structures' sizes); its addresses lie in buffers, as the trait says.
        unsafe {
            let block = (launch.kernel.threads, 1, 1);
            result::launch_kernel(*function, (x, y, z), block, launch.shared, self.stream, &mut pointers)
        }
        .map_err(|error| failed(&doing, error))?;
        if self.waits {
            // SAFETY: the stream lives until the driver is dropped; nothing is being recorded, see `record`.
            unsafe { result::stream::synchronize(self.stream) }.map_err(|error| failed(&doing, error))?;
        }
        Ok(())
    }

    fn record(&mut self) -> Result<(), DeviceError> {
        if self.waits {
            return Err(DeviceError::Unsupported(format!("{WAIT_VARIABLE} is set: nothing is recorded")));
        }
        self.enter()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives until the driver is dropped.
        unsafe { result::stream::begin_capture(self.stream, mode) }.map_err(|error| failed("recording", error))
    }

    fn keep(&mut self, key: u64) -> Result<(), DeviceError> {
        self.enter()?;
        let fail = |error| failed("keeping a recorded step", error);
        // SAFETY: recording began on this stream; the graph is destroyed once it has been instantiated.
        let series = unsafe {
            let graph = result::stream::end_capture(self.stream).map_err(fail)?;
            let mut series = std::ptr::null_mut();
            let made = sys::cuGraphInstantiateWithFlags(&mut series, graph, 0).result();
            let _ = result::graph::destroy(graph);
            made.map_err(fail)?;
            series
        };
        self.series.insert(key, series);
        Ok(())
    }

    fn replay(&mut self, key: u64) -> Result<bool, DeviceError> {
        self.enter()?;
        let Some(series) = self.series.get(&key) else { return Ok(false) };
        // SAFETY: series and stream live until they are forgotten, which takes `&mut self`.
        unsafe { result::graph::launch(*series, self.stream) }.map_err(|error| failed("replaying a step", error))?;
        Ok(true)
    }

    fn forget(&mut self) {
        if self.enter().is_ok() && self.wait().is_ok() {
            for (_, series) in self.series.drain() {
                // SAFETY: no replay is under way.
                let _ = unsafe { result::graph::exec_destroy(series) };
            }
        }
    }

    fn seconds(&mut self) -> Result<f64, DeviceError> {
        self.enter()?;
        // SAFETY: both events were recorded on this stream and live until the driver is dropped.
        unsafe {
            result::event::record(self.ended, self.stream)
                .and_then(|()| result::event::synchronize(self.ended))
                .and_then(|()| result::event::elapsed(self.marked, self.ended))
        }
        .map(|milliseconds| f64::from(milliseconds) / 1e3)
        .map_err(|error| failed("measuring time", error))
    }

    fn mark(&mut self) -> Result<(), DeviceError> {
        self.enter()?;
        // SAFETY: event and stream live until the driver is dropped.
        unsafe { result::event::record(self.marked, self.stream) }.map_err(|error| failed("measuring time", error))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // What fails here has failed before. The context is given up all the same: the next one must be a new one.
        let _ = self.enter();
        self.forget();
        // SAFETY: all was made by this driver, and no work is under way once both streams have ended.
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            let _ = result::stream::synchronize(self.aside);
            self.staging.free();
            self.aside_staging.free();
            for module in self.modules.drain(..) {
                let _ = result::module::unload(module);
            }
            for event in [self.aside_done, self.marked, self.ended] {
                let _ = result::event::destroy(event);
            }
            for stream in [self.stream, self.aside] {
                let _ = result::stream::destroy(stream);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_device_says_why() {
        match Driver::open(0) {
            Err(DeviceError::Absent(why)) => assert!(!why.is_empty()),
            Err(other) => panic!("{other}"),
            Ok(driver) => assert!(!driver.name().is_empty()),
        }
    }
}
