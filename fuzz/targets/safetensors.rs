//! Files of weights.
#![no_main]
mod folder;

use libfuzzer_sys::fuzz_target;
use model::Tensors;

fuzz_target!(|bytes: &[u8]| {
    // A header's length and a header, without the arithmetic of their lengths: an input may also be a whole file.
    let length = (bytes.len() as u64).to_le_bytes();
    for file in [bytes.to_vec(), [&length, bytes, &[0; 64]].concat()] {
        let path = folder::folder(&[("model.safetensors", &file)]).join("model.safetensors");
        let Ok(tensors) = Tensors::open_file(&path) else { continue };
        for name in tensors.names() {
            let tensor = tensors.get(name).expect("a name that is listed");
            assert!(tensor.bytes() <= file.len() as u64);
        }
    }
});
