//! The kernels by name, and the PTX they are kept in.

/// A kernel: which file, which entry, how many threads a block has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Kernel {
    /// Stem of the file in kernels/ and ptx/.
    pub file: &'static str,
    /// Entry point.
    pub name: &'static str,
    /// Threads of a block.
    pub threads: u32,
}

macro_rules! kernels {
    ($($constant:ident = $file:literal, $name:literal, $threads:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "` of ", $file, ".cu")]
            pub const $constant: Kernel = Kernel { file: $file, name: $name, threads: $threads };
        )*
        /// Every kernel.
        pub const ALL: &[Kernel] = &[$($constant),*];
    };
}

kernels! {
    EMBED = "embed", "embed", 256;
    PREPARE = "prepare", "prepare", 256;
    PREPARE_FEW = "prepare", "prepare_few", 1024;
    HEADS = "heads", "heads", 128;
    PRODUCT_A8_8 = "product", "product_a8_8", 256;
    PRODUCT_A8_16 = "product", "product_a8_16", 256;
    PRODUCT_A8_64 = "product", "product_a8_64", 256;
    PRODUCT_A16_8 = "product", "product_a16_8", 256;
    PRODUCT_A16_16 = "product", "product_a16_16", 256;
    PRODUCT_A16_32 = "product", "product_a16_32", 256;
    GEMM_A8 = "gemm", "gemm_a8", 256;
    GEMM_A16 = "gemm", "gemm_a16", 256;
    ADAPTER_DOWN = "adapter", "adapter_down", 256;
    ADAPTER_UP = "adapter", "adapter_up", 256;
    ATTEND_FEW_64 = "attend_few", "attend_few_64", 256;
    ATTEND_FEW_128 = "attend_few", "attend_few_128", 256;
    ATTEND_FEW_256 = "attend_few", "attend_few_256", 128;
    ATTEND_FEW_512 = "attend_few", "attend_few_512", 64;
    JOIN_SPANS = "attend_few", "join_spans", 128;
    ATTEND_MANY_64 = "attend_many", "attend_many_64", 256;
    ATTEND_MANY_128 = "attend_many", "attend_many_128", 256;
    ATTEND_MANY_256 = "attend_many", "attend_many_256", 128;
    ATTEND_MANY_512 = "attend_many", "attend_many_512", 64;
    ROUTE = "mixture", "route", 1024;
    GATHER = "mixture", "gather", 1024;
    COMBINE = "mixture", "combine", 256;
    SAMPLE = "sample", "sample", 1024;
    HASH_MESSAGES = "hash", "hash_messages", 32;
    LEAF_MESSAGE = "hash", "leaf_message", 256;
    MEASURE_COPY = "measure", "measure_copy", 256;
    MEASURE_PRODUCTS = "measure", "measure_products", 256;
}

/// The kept PTX by file (tools/ptx.py writes it, CI compares it with what the kernels compile to).
pub const PTX: &[(&str, &str)] = &[
    ("adapter", include_str!("../ptx/adapter.ptx")),
    ("attend_few", include_str!("../ptx/attend_few.ptx")),
    ("attend_many", include_str!("../ptx/attend_many.ptx")),
    ("embed", include_str!("../ptx/embed.ptx")),
    ("gemm", include_str!("../ptx/gemm.ptx")),
    ("hash", include_str!("../ptx/hash.ptx")),
    ("heads", include_str!("../ptx/heads.ptx")),
    ("measure", include_str!("../ptx/measure.ptx")),
    ("mixture", include_str!("../ptx/mixture.ptx")),
    ("prepare", include_str!("../ptx/prepare.ptx")),
    ("product", include_str!("../ptx/product.ptx")),
    ("sample", include_str!("../ptx/sample.ptx")),
];
