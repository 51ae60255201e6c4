//! The kernels on the processor: shim/shim.cpp, compiled with g++ and loaded, behind the executor's [`Launcher`].
#![expect(unsafe_code, reason = "a C library loaded by hand")]
#![expect(dead_code, reason = "each test file uses its part")]

use cuda::{Buffer, DeviceError, Launch, Launcher};
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

type Entry = unsafe extern "C" fn(*const c_void);

struct Library(usize);

impl Library {
    fn symbol(&self, name: &str) -> *mut c_void {
        let name = CString::new(name).unwrap();
        // SAFETY: the library is never closed; the name ends with a zero byte.
        let found = unsafe { libc::dlsym(self.0 as *mut c_void, name.as_ptr().cast::<c_char>()) };
        assert!(!found.is_null(), "the shim has no {name:?}");
        found
    }
}

/// Compiles and loads the shim once in a process. One launch at a time runs in it.
fn library() -> MutexGuard<'static, Library> {
    static LIBRARY: OnceLock<Mutex<Library>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        let path = CString::new(compile().to_str().unwrap()).unwrap();
        // SAFETY: our own library, whose initialisers do nothing.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "loading {path:?} failed");
        Mutex::new(Library(handle as usize))
    });
    library.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shared library's path; compiled anew if a source is newer.
fn compile() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lockstep-shim.so");
    let sources = ["shim", "kernels"].map(|folder| root.join(folder).read_dir().unwrap());
    let changed = |path: &Path| path.metadata().and_then(|data| data.modified());
    let newest = sources.into_iter().flatten().map(|entry| changed(&entry.unwrap().path()).unwrap()).max().unwrap();
    if changed(&out).is_ok_and(|built| built > newest) {
        return out;
    }
    let partial = out.with_extension(format!("{}", std::process::id()));
    let output = Command::new("g++")
        .args(["-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fwrapv", "-fno-strict-aliasing", "-w"])
        .args(["-fPIC", "-shared", "-fvisibility=hidden", "-DLOCKSTEP_SHIM"])
        .arg("-I")
        .arg(root.join("shim"))
        .arg(root.join("shim/shim.cpp"))
        .arg("-o")
        .arg(&partial)
        .output();
    assert!(output.is_ok(), "these tests need g++, which compiles the kernels for the processor");
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&partial, &out).unwrap();
    out
}

/// A device made of the processor and some of its memory.
pub(crate) struct Shim {
    /// Bytes it pretends to have.
    pub(crate) capacity: usize,
    /// Dynamic shared memory it pretends to have for a block.
    pub(crate) shared: u32,
    /// 0: blocks and threads ascending, 1: descending, 2: alternating from launch to launch.
    pub(crate) order: u32,
    /// Launches so far, and replays.
    pub(crate) launches: usize,
    pub(crate) replays: usize,
    pub(crate) used: usize,
    pub(crate) series: HashMap<u64, Vec<Launch>>,
    pub(crate) recording: Option<Vec<Launch>>,
    /// Launches after which every one fails.
    pub(crate) fails_after: usize,
    /// Whether series cannot be kept.
    pub(crate) forgetful: bool,
    /// Whether what is read comes back with a bit flipped now and then.
    pub(crate) faulty: bool,
}

impl Default for Shim {
    fn default() -> Self {
        Shim {
            capacity: 8 << 30,
            shared: 100 << 10,
            order: 2,
            launches: 0,
            replays: 0,
            used: 0,
            series: HashMap::new(),
            recording: None,
            fails_after: usize::MAX,
            forgetful: false,
            faulty: false,
        }
    }
}

impl Shim {
    fn run(&mut self, launch: &Launch) {
        assert!(launch.grid.iter().all(|n| *n > 0), "an empty grid: {launch:?}");
        assert!(launch.shared <= self.shared, "too much shared memory: {launch:?}");
        let library = library();
        let mut arguments = vec![0u64; launch.arguments.len().div_ceil(8)];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut arguments);
        bytes[..launch.arguments.len()].copy_from_slice(&launch.arguments);
        let order = if self.order == 2 { self.launches as u32 % 2 } else { self.order };
        self.launches += 1;
        // SAFETY: the symbols have these signatures in shim.cpp; kernels trust their arguments, which is what is tested.
        unsafe {
            let set: unsafe extern "C" fn(u32) = std::mem::transmute(library.symbol("shim_order"));
            let run: unsafe extern "C" fn(Entry, *const c_void, *const u32, u32, u32) =
                std::mem::transmute(library.symbol("shim_launch"));
            let entry: Entry = std::mem::transmute(library.symbol(&format!("lockstep_{}", launch.kernel.name)));
            set(order);
            run(entry, arguments.as_ptr().cast(), launch.grid.as_ptr(), launch.kernel.threads, launch.shared);
        }
    }
}

impl Launcher for Shim {
    fn name(&self) -> String {
        "processor".to_owned()
    }

    fn memory(&self) -> Result<(usize, usize), DeviceError> {
        Ok((self.capacity - self.used, self.capacity))
    }

    fn shared_max(&self) -> u32 {
        self.shared
    }

    fn alloc(&mut self, bytes: usize) -> Result<Buffer, DeviceError> {
        assert!(bytes > 0, "the driver gives no memory of no bytes");
        if self.used + bytes > self.capacity {
            return Err(DeviceError::Memory(bytes));
        }
        self.used += bytes;
        // SAFETY: the symbol has this signature in shim.cpp.
        let address = unsafe {
            let alloc: unsafe extern "C" fn(usize) -> *mut c_void = std::mem::transmute(library().symbol("shim_alloc"));
            alloc(bytes)
        };
        assert!(!address.is_null());
        Ok(Buffer { address: address as u64, bytes })
    }

    fn free(&mut self, buffer: Buffer) {
        self.used -= buffer.bytes;
        // SAFETY: came from `alloc` with the same size.
        unsafe {
            let free: unsafe extern "C" fn(*mut c_void, usize) = std::mem::transmute(library().symbol("shim_free"));
            free(buffer.address as *mut c_void, buffer.bytes);
        }
    }

    fn write(&mut self, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        assert!(self.recording.is_none());
        // SAFETY: the destination lies in a buffer, or the guard page behind it ends the test.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    fn write_aside(&mut self, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.write(to, bytes)
    }

    fn join_aside(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn read(&mut self, from: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        assert!(self.recording.is_none());
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        if let (true, Some(byte)) = (self.faulty && self.launches.is_multiple_of(5), bytes.first_mut()) {
            *byte ^= 1;
        }
        Ok(())
    }

    fn launch(&mut self, launch: Launch) -> Result<(), DeviceError> {
        if self.launches >= self.fails_after {
            return Err(DeviceError::Driver {
                doing: format!("launching {}", launch.kernel.name),
                message: "the device fell off the bus".to_owned(),
            });
        }
        match &mut self.recording {
            Some(series) => series.push(launch),
            None => self.run(&launch),
        }
        Ok(())
    }

    fn record(&mut self) -> Result<(), DeviceError> {
        assert!(self.recording.replace(Vec::new()).is_none());
        Ok(())
    }

    fn keep(&mut self, key: u64) -> Result<(), DeviceError> {
        let series = self.recording.take().unwrap();
        if self.forgetful {
            return Err(DeviceError::Driver { doing: "keeping".to_owned(), message: "no room".to_owned() });
        }
        self.series.insert(key, series);
        Ok(())
    }

    fn replay(&mut self, key: u64) -> Result<bool, DeviceError> {
        let Some(series) = self.series.get(&key).cloned() else { return Ok(false) };
        if self.launches >= self.fails_after {
            return Err(DeviceError::Driver {
                doing: "replaying".to_owned(),
                message: "the device fell off the bus".to_owned(),
            });
        }
        self.replays += 1;
        series.iter().for_each(|launch| self.run(launch));
        Ok(true)
    }

    fn forget(&mut self) {
        self.series.clear();
    }

    fn seconds(&mut self) -> Result<f64, DeviceError> {
        Ok(0.0)
    }

    fn mark(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// Random numbers below bounds.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn word(&mut self) -> u32 {
        self.0 += 1;
        exact::generator::philox([7, 7], [self.0 as u32, (self.0 >> 32) as u32, 0, 0])[0]
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.word() as usize % n
    }

    /// Mostly of ordinary size, now and then large, tiny or zero.
    pub(crate) fn float(&mut self) -> f32 {
        let x = (self.word() as i32) as f32 / (1u64 << 31) as f32;
        match self.below(40) {
            0 => x * 1e4,
            1 => x * 1e-9,
            2 => 0.0,
            3 => -0.0,
            _ => x,
        }
    }
}

/// Bytes of a structure of kernels/types.cuh.
pub(crate) fn size_of_structure(name: &str) -> usize {
    let name = CString::new(name).unwrap();
    // SAFETY: the symbol has this signature in shim.cpp; the name ends with a zero byte.
    unsafe {
        let size: unsafe extern "C" fn(*const c_char) -> usize = std::mem::transmute(library().symbol("shim_size"));
        size(name.as_ptr())
    }
}
