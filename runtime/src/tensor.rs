//! Dense tensors as they enter and leave the runtime: a shape and typed values.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::map::Section;

/// Element type, by ONNX's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DType {
    F32,
    F64,
    F16,
    Bf16,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    Bool,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::I8 | DType::U8 | DType::Bool => 1,
            DType::F16 | DType::Bf16 | DType::I16 | DType::U16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 | DType::I64 | DType::U64 => 8,
        }
    }

    /// The lower-case name used in reports and manifests: `f32`, `i64`, `bool` ...
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::I8 => "i8",
            DType::U8 => "u8",
            DType::I16 => "i16",
            DType::U16 => "u16",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::I64 => "i64",
            DType::U64 => "u64",
            DType::Bool => "bool",
        }
    }

    /// The type that [`DType::name`] calls `name`.
    pub fn from_name(name: &str) -> Option<DType> {
        use DType::*;
        [F32, F64, F16, Bf16, I8, U8, I16, U16, I32, U32, I64, U64, Bool]
            .into_iter()
            .find(|dtype| dtype.name() == name)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A tensor in row-major order: little-endian bytes under a shape and an element type.
///
/// The number of bytes always equals the product of the shape times the element's size. A clone shares the
/// bytes.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Values,
}

/// The bytes of a tensor: its own, or where they lie in a mapped file.
#[derive(Clone)]
enum Values {
    Own(Arc<Vec<u8>>),
    Mapped(Section),
}

impl std::ops::Deref for Values {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Values::Own(bytes) => bytes,
            Values::Mapped(section) => section,
        }
    }
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Tensor) -> bool {
        (self.dtype, &self.shape) == (other.dtype, &other.shape) && *self.bytes == *other.bytes
    }
}

impl Tensor {
    /// A tensor over `bytes`, little-endian and row-major.
    ///
    /// # Errors
    /// [`Error::Graph`] where the shape's product, times the element size, is not `bytes.len()`
    /// or does not fit a `usize`.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Result<Tensor> {
        Tensor::from_parts(dtype, shape, Values::Own(Arc::new(bytes)))
    }

    /// A tensor over mapped bytes, without a copy.
    ///
    /// # Errors
    /// As [`Tensor::from_bytes`].
    pub(crate) fn from_section(dtype: DType, shape: &[usize], section: Section) -> Result<Tensor> {
        Tensor::from_parts(dtype, shape, Values::Mapped(section))
    }

    fn from_parts(dtype: DType, shape: &[usize], bytes: Values) -> Result<Tensor> {
        let needed = shape
            .iter()
            .try_fold(dtype.size(), |product, &extent| product.checked_mul(extent))
            .filter(|&needed| needed == bytes.len());
        if needed.is_none() {
            return Err(Error::graph(
                "tensor",
                format!("the bytes of {dtype} {shape:?}"),
                format!("{} bytes", bytes.len()),
            ));
        }
        Ok(Tensor { dtype, shape: shape.to_vec(), bytes })
    }

    /// A tensor of f32 values.
    ///
    /// # Panics
    /// Where the product of `shape` is not `values.len()`.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_values(DType::F32, shape, values)
    }

    /// A tensor of i64 values.
    ///
    /// # Panics
    /// Where the product of `shape` is not `values.len()`.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Tensor {
        Tensor::from_values(DType::I64, shape, values)
    }

    /// A tensor of i32 values.
    ///
    /// # Panics
    /// Where the product of `shape` is not `values.len()`.
    pub fn from_i32(shape: &[usize], values: &[i32]) -> Tensor {
        Tensor::from_values(DType::I32, shape, values)
    }

    /// A tensor of i8 values.
    ///
    /// # Panics
    /// Where the product of `shape` is not `values.len()`.
    pub fn from_i8(shape: &[usize], values: &[i8]) -> Tensor {
        Tensor::from_values(DType::I8, shape, values)
    }

    fn from_values<T: bytemuck::NoUninit>(dtype: DType, shape: &[usize], values: &[T]) -> Tensor {
        Tensor::from_bytes(dtype, shape, bytemuck::cast_slice(values).to_vec())
            .expect("a shape's product is the number of its values")
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values, little-endian and row-major.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where its bytes lie: the same for a clone.
    pub(crate) fn address(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    /// Gives back the pages that this process holds of it, where it lies in a mapped file.
    pub(crate) fn release(&self) {
        if let Values::Mapped(section) = &self.bytes {
            section.release();
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The values of an f32 tensor; `None` for any other type.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        self.values(DType::F32)
    }

    /// The values of an i64 tensor; `None` for any other type.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        self.values(DType::I64)
    }

    /// The values of an i32 tensor; `None` for any other type.
    pub fn to_i32(&self) -> Option<Vec<i32>> {
        self.values(DType::I32)
    }

    /// The values of an i8 tensor; `None` for any other type.
    pub fn to_i8(&self) -> Option<Vec<i8>> {
        self.values(DType::I8)
    }

    fn values<T: bytemuck::Pod>(&self, dtype: DType) -> Option<Vec<T>> {
        // The bytes need not be aligned for `T`, so they are collected, not cast.
        (self.dtype == dtype).then(|| bytemuck::allocation::pod_collect_to_vec(&self.bytes))
    }

    /// The same values under another shape.
    ///
    /// # Errors
    /// [`Error::Graph`] where the two shapes hold different numbers of elements.
    pub fn reshaped(self, shape: &[usize]) -> Result<Tensor> {
        Tensor::from_parts(self.dtype, shape, self.bytes)
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.dtype, self.shape)
    }
}
