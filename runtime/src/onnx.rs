//! ONNX files: protobuf messages (tract's schema, where it is built in) to [`Graph`] and back.
//!
//! Reading refuses by name what [`Graph`] cannot hold - sparse or string tensors, functions,
//! sequence-typed inputs - and lists all of it at once. External data stays inside the folder
//! of the model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use prost::Message;

use crate::error::{Error, Result};
use crate::graph::{Attribute, Dim, Graph, Node, ValueSpec};
use crate::pb::{
    self, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto::Dimension,
    tensor_shape_proto::dimension::Value as DimValue, type_proto::Value as TypeValue,
};
use crate::tensor::{DType, Tensor};

impl Tensor {
    /// Reads the tensor at `path`, a file with one `TensorProto` (`onnx.save_tensor` writes it).
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotOnnx`], [`Error::Unsupported`] where its element type is not one of
    /// [`DType`], or [`Error::Graph`] where shape and bytes contradict each other.
    pub fn read_onnx(path: &Path) -> Result<Tensor> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let file = path.display().to_string();
        let mut proto = pb::TensorProto::decode(&bytes[..])
            .map_err(|source| Error::NotOnnx { file: file.clone(), reason: source.to_string() })?;
        let mut reader = Reader { folder: path.parent(), findings: Vec::new() };
        let place = format!("tensor `{}`", proto.name);
        let tensor = reader.tensor(&mut proto, &place)?;
        tensor.ok_or(Error::Unsupported { model: file, findings: reader.findings })
    }
}

impl DType {
    /// Its number in ONNX files, as the attribute `to` of `Cast` gives it.
    pub(crate) fn onnx_number(self) -> i64 {
        i64::from(data_type(self) as i32)
    }

    /// The type that [`DType::onnx_number`] calls `number`.
    pub(crate) fn of_onnx_number(number: i64) -> Option<DType> {
        dtype(i32::try_from(number).ok()?)
    }
}

/// The ONNX file format version that [`Graph::to_onnx`] writes; opset 17 needs 8.
const IR_VERSION: i64 = 8;

impl Graph {
    /// Reads the ONNX file at `path`, with external data from its own folder only.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotOnnx`], [`Error::Unsupported`] with everything that [`Graph`]
    /// cannot hold, or [`Error::Graph`] where nodes are out of order or values undefined.
    pub fn read_onnx(path: &Path) -> Result<Graph> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let file = path.display().to_string();
        let model = message(&bytes, &file)?;
        // From here on the message holds the constants, and each moves out of it.
        drop(bytes);
        let graph = decode(model, &file, Some(folder))?;
        graph.validate()?;
        Ok(graph)
    }

    /// Reads a model from bytes; external data is refused.
    ///
    /// # Errors
    /// As [`Graph::read_onnx`].
    pub fn from_onnx(bytes: &[u8]) -> Result<Graph> {
        let graph = decode(message(bytes, "the given bytes")?, "the given bytes", None)?;
        graph.validate()?;
        Ok(graph)
    }

    /// Reads a model whose constants, with these names, lie elsewhere.
    pub(crate) fn from_onnx_without_constants(
        bytes: &[u8],
        constants: BTreeSet<String>,
    ) -> Result<Graph> {
        let graph = decode(message(bytes, "the graph section")?, "the graph section", None)?;
        graph.validate_within(&constants)?;
        Ok(graph)
    }

    /// The model as the bytes of an ONNX file, the same for the same graph.
    pub fn to_onnx(&self) -> Vec<u8> {
        to_model(self).encode_to_vec()
    }
}

fn message(bytes: &[u8], file: &str) -> Result<pb::ModelProto> {
    pb::ModelProto::decode(bytes)
        .map_err(|source| Error::NotOnnx { file: file.to_owned(), reason: source.to_string() })
}

fn decode(mut model: pb::ModelProto, file: &str, folder: Option<&Path>) -> Result<Graph> {
    let mut graph = model.graph.take().ok_or_else(|| Error::NotOnnx {
        file: file.to_owned(),
        reason: "it holds no graph".to_owned(),
    })?;
    let mut reader = Reader { folder, findings: Vec::new() };
    if !model.functions.is_empty() {
        let names: Vec<&str> = model.functions.iter().filter_map(|f| f.name.as_deref()).collect();
        reader.findings.push(format!(
            "model-local functions ({}); inline them (`onnx.inliner`) and try again",
            names.join(", ")
        ));
    }
    // tract's schema knows tensor types only; any other decodes as none.
    let typeless = |value: &&pb::ValueInfoProto| {
        value.r#type.as_ref().is_none_or(|r#type| r#type.value.is_none())
    };
    for value in graph.input.iter().chain(&graph.output).filter(typeless) {
        let name = &value.name;
        reader
            .findings
            .push(format!("value `{name}`: not a tensor; sequences, maps and optionals"));
    }
    let mut result = reader.graph(&mut graph)?;
    result.opsets = model.opset_import.iter().map(|o| (o.domain.clone(), o.version)).collect();
    result.metadata =
        model.metadata_props.iter().map(|p| (p.key.clone(), p.value.clone())).collect();
    if !reader.findings.is_empty() {
        return Err(Error::Unsupported { model: file.to_owned(), findings: reader.findings });
    }
    Ok(result)
}

/// Reads messages and gathers what it has no form for.
struct Reader<'a> {
    folder: Option<&'a Path>,
    findings: Vec<String>,
}

impl Reader<'_> {
    fn graph(&mut self, proto: &mut pb::GraphProto) -> Result<Graph> {
        if !proto.sparse_initializer.is_empty() {
            self.findings.push("sparse initializers; store them dense".to_owned());
        }
        let mut initializers = BTreeMap::new();
        for tensor in &mut proto.initializer {
            let place = format!("initializer `{}`", tensor.name);
            if let Some(value) = self.tensor(tensor, &place)? {
                initializers.insert(tensor.name.clone(), value);
            }
        }
        // Before IR version 4 initializers had to be listed as inputs too; they are constants here.
        let given = proto.input.iter().filter(|input| !initializers.contains_key(&input.name));
        let inputs = given.filter_map(|input| self.value(input)).collect();
        let outputs = proto.output.iter().filter_map(|output| self.value(output)).collect();
        let nodes = proto.node.iter_mut().map(|node| self.node(node)).collect::<Result<_>>()?;
        Ok(Graph {
            name: proto.name.clone(),
            inputs,
            outputs,
            nodes,
            initializers,
            ..Graph::default()
        })
    }

    fn node(&mut self, proto: &mut pb::NodeProto) -> Result<Node> {
        let mut node = Node {
            name: proto.name.clone(),
            domain: proto.domain.clone(),
            op: proto.op_type.clone(),
            inputs: proto.input.clone(),
            outputs: proto.output.clone(),
            attributes: BTreeMap::new(),
        };
        for attribute in &mut proto.attribute {
            let place = format!("attribute `{}` of {}", attribute.name, node.place());
            if let Some(value) = self.attribute(attribute, &place)? {
                node.attributes.insert(attribute.name.clone(), value);
            }
        }
        Ok(node)
    }

    fn attribute(
        &mut self,
        proto: &mut pb::AttributeProto,
        place: &str,
    ) -> Result<Option<Attribute>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(match AttributeType::try_from(proto.r#type) {
            Ok(AttributeType::Int) => Some(Attribute::Int(proto.i)),
            Ok(AttributeType::Float) => Some(Attribute::Float(proto.f)),
            Ok(AttributeType::String) => Some(Attribute::String(text(&proto.s))),
            Ok(AttributeType::Ints) => Some(Attribute::Ints(proto.ints.clone())),
            Ok(AttributeType::Floats) => Some(Attribute::Floats(proto.floats.clone())),
            Ok(AttributeType::Strings) => {
                Some(Attribute::Strings(proto.strings.iter().map(|s| text(s)).collect()))
            }
            Ok(AttributeType::Tensor) => match &mut proto.t {
                Some(tensor) => self.tensor(tensor, place)?.map(Attribute::Tensor),
                None => return Err(Error::graph(place, "a tensor", "none")),
            },
            Ok(AttributeType::Graph) => match &mut proto.g {
                Some(graph) => Some(Attribute::Graph(Box::new(self.graph(graph)?))),
                None => return Err(Error::graph(place, "a graph", "none")),
            },
            _ => {
                self.findings.push(format!("{place}: attribute type {}", proto.r#type));
                None
            }
        })
    }

    fn value(&mut self, proto: &pb::ValueInfoProto) -> Option<ValueSpec> {
        let tensor = match proto.r#type.as_ref().and_then(|r#type| r#type.value.as_ref()) {
            Some(TypeValue::TensorType(tensor)) => tensor,
            // Values of subgraphs may leave their type to inference; no stage of ours reads it.
            None => return Some(ValueSpec::new(&proto.name, DType::F32, &[])),
        };
        let Some(dtype) = dtype(tensor.elem_type) else {
            self.findings.push(format!(
                "value `{}`: element type {}",
                proto.name,
                type_name(tensor.elem_type)
            ));
            return None;
        };
        let dims = tensor.shape.iter().flat_map(|shape| &shape.dim).enumerate();
        let shape = dims.map(|(axis, dim)| match &dim.value {
            Some(DimValue::DimValue(extent)) if *extent >= 0 => Dim::Fixed(*extent as usize),
            // PaddlePaddle's exporter names every open extent `?`; they need not be equal.
            Some(DimValue::DimParam(name)) if !matches!(name.as_str(), "" | "?") => {
                Dim::Symbol(name.clone())
            }
            _ => Dim::Symbol(format!("{}_{axis}", proto.name)),
        });
        Some(ValueSpec { name: proto.name.clone(), dtype, shape: shape.collect() })
    }

    fn tensor(&mut self, proto: &mut pb::TensorProto, place: &str) -> Result<Option<Tensor>> {
        if let Some(tensor) = half_bytes(proto) {
            return tensor.map(Some);
        }
        let Some(dtype) = dtype(proto.data_type) else {
            self.findings.push(format!("{place}: element type {}", type_name(proto.data_type)));
            return Ok(None);
        };
        let extent = |&extent: &i64| {
            usize::try_from(extent)
                .map_err(|_| Error::graph(place, "extents of 0 or more", extent.to_string()))
        };
        let shape: Vec<usize> = proto.dims.iter().map(extent).collect::<Result<_>>()?;
        let external = pb::tensor_proto::DataLocation::External as i32;
        let bytes = if proto.data_location == Some(external) {
            self.external(proto, place)?
        } else if proto.raw_data.is_empty() {
            typed_bytes(proto, dtype)
        } else {
            std::mem::take(&mut proto.raw_data)
        };
        Tensor::from_bytes(dtype, &shape, bytes).map(Some).map_err(|error| match error {
            Error::Graph { expected, got, .. } => Error::graph(place, expected, got),
            other => other,
        })
    }

    fn external(&self, proto: &pb::TensorProto, place: &str) -> Result<Vec<u8>> {
        let entry = |key: &str| {
            let found = proto.external_data.iter().find(|entry| entry.key == key);
            found.map(|entry| entry.value.as_str())
        };
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text.parse::<usize>().map(Some).map_err(|_| {
                Error::graph(place, format!("a number of bytes as `{key}`"), format!("`{text}`"))
            }),
        };
        let location = Path::new(entry("location").unwrap_or_default());
        let inside = location.file_name().is_some()
            && location.components().all(|part| matches!(part, Component::Normal(_)));
        let (Some(folder), true) = (self.folder, inside) else {
            return Err(Error::graph(
                place,
                "external data in a file beside the model",
                format!("`{}`", location.display()),
            ));
        };
        let path = folder.join(location);
        // A link could still lead out of the folder; what is read must lie in it.
        let real = path.canonicalize().map_err(Error::io("read", &path))?;
        if !real.starts_with(folder.canonicalize().map_err(Error::io("read", folder))?) {
            return Err(Error::graph(
                place,
                "external data in a file beside the model",
                format!("a link to `{}`", real.display()),
            ));
        }
        let file = std::fs::read(&real).map_err(Error::io("read", &path))?;
        let start = number("offset")?.unwrap_or(0);
        let end = match number("length")? {
            Some(length) => start.checked_add(length),
            None => Some(file.len()),
        };
        end.and_then(|end| file.get(start..end)).map(<[u8]>::to_vec).ok_or_else(|| {
            Error::graph(
                place,
                format!("offset and length within `{}`", path.display()),
                format!("offset {start} in {} bytes", file.len()),
            )
        })
    }
}

/// A constant of 4-bit integers as the same integers in 8 bits; `None` for any other type, and where it lies
/// in another file. Two of them lie in a byte, the first one in its lower half (onnx.proto).
fn half_bytes(proto: &pb::TensorProto) -> Option<Result<Tensor>> {
    let dtype = match DataType::try_from(proto.data_type).ok()? {
        DataType::Int4 => DType::I8,
        DataType::Uint4 => DType::U8,
        _ => return None,
    };
    let external = proto.data_location == Some(pb::tensor_proto::DataLocation::External as i32);
    let shape = proto.dims.iter().map(|&extent| usize::try_from(extent).ok());
    let shape: Vec<usize> = shape.collect::<Option<_>>().filter(|_| !external)?;
    let count = shape.iter().try_fold(1_usize, |count, &extent| count.checked_mul(extent))?;
    let bytes = match proto.raw_data.is_empty() {
        true => proto.int32_data.iter().map(|&byte| byte as u8).collect(),
        false => proto.raw_data.clone(),
    };
    let widen = |half: u8| match dtype {
        // The sign is the highest of the four bits.
        DType::I8 => ((half << 4) as i8 >> 4) as u8,
        _ => half,
    };
    let mut halves: Vec<u8> =
        bytes.iter().flat_map(|byte| [byte & 15, byte >> 4]).map(widen).collect();
    if count % 2 == 1 {
        halves.pop();
    }
    Some(Tensor::from_bytes(dtype, &shape, halves))
}

/// The bytes of a tensor that is stored in a typed field rather than in `raw_data`.
fn typed_bytes(proto: &pb::TensorProto, dtype: DType) -> Vec<u8> {
    fn bytes<T, const N: usize>(values: &[T], f: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(f).collect()
    }
    // onnx.proto: types narrower than 32 bits lie in `int32_data`, u32 and u64 in `uint64_data`.
    match dtype {
        DType::F32 => bytes(&proto.float_data, |v| v.to_le_bytes()),
        DType::F64 => bytes(&proto.double_data, |v| v.to_le_bytes()),
        DType::I64 => bytes(&proto.int64_data, |v| v.to_le_bytes()),
        DType::I32 => bytes(&proto.int32_data, |v| v.to_le_bytes()),
        DType::U64 => bytes(&proto.uint64_data, |v| v.to_le_bytes()),
        DType::U32 => bytes(&proto.uint64_data, |v| (*v as u32).to_le_bytes()),
        DType::I8 | DType::U8 | DType::Bool => bytes(&proto.int32_data, |v| [*v as u8]),
        DType::F16 | DType::Bf16 | DType::I16 | DType::U16 => {
            bytes(&proto.int32_data, |v| (*v as u16).to_le_bytes())
        }
    }
}

fn dtype(data_type: i32) -> Option<DType> {
    Some(match DataType::try_from(data_type).ok()? {
        DataType::Float => DType::F32,
        DataType::Double => DType::F64,
        DataType::Float16 => DType::F16,
        DataType::Bfloat16 => DType::Bf16,
        DataType::Int8 => DType::I8,
        DataType::Uint8 => DType::U8,
        DataType::Int16 => DType::I16,
        DataType::Uint16 => DType::U16,
        DataType::Int32 => DType::I32,
        DataType::Uint32 => DType::U32,
        DataType::Int64 => DType::I64,
        DataType::Uint64 => DType::U64,
        DataType::Bool => DType::Bool,
        _ => return None,
    })
}

fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::Float,
        DType::F64 => DataType::Double,
        DType::F16 => DataType::Float16,
        DType::Bf16 => DataType::Bfloat16,
        DType::I8 => DataType::Int8,
        DType::U8 => DataType::Uint8,
        DType::I16 => DataType::Int16,
        DType::U16 => DataType::Uint16,
        DType::I32 => DataType::Int32,
        DType::U32 => DataType::Uint32,
        DType::I64 => DataType::Int64,
        DType::U64 => DataType::Uint64,
        DType::Bool => DataType::Bool,
    }
}

fn type_name(data_type: i32) -> String {
    match DataType::try_from(data_type) {
        Ok(known) => format!("{known:?}").to_lowercase(),
        Err(_) => format!("number {data_type}"),
    }
}

/// The protobuf message of a graph, as tract takes it.
pub(crate) fn to_model(graph: &Graph) -> pb::ModelProto {
    let property = |(key, value): (&String, &String)| pb::StringStringEntryProto {
        key: key.clone(),
        value: value.clone(),
    };
    let opset = |(domain, &version): (&String, &i64)| pb::OperatorSetIdProto {
        domain: domain.clone(),
        version,
    };
    pb::ModelProto {
        ir_version: IR_VERSION,
        producer_name: "dram".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        opset_import: graph.opsets.iter().map(opset).collect(),
        metadata_props: graph.metadata.iter().map(property).collect(),
        graph: Some(graph_proto(graph, value_proto)),
        ..pb::ModelProto::default()
    }
}

fn graph_proto(graph: &Graph, value: fn(&ValueSpec) -> pb::ValueInfoProto) -> pb::GraphProto {
    pb::GraphProto {
        name: graph.name.clone(),
        input: graph.inputs.iter().map(value).collect(),
        output: graph.outputs.iter().map(value).collect(),
        node: graph.nodes.iter().map(node_proto).collect(),
        initializer: graph.initializers.iter().map(|(name, t)| tensor_proto(name, t)).collect(),
        ..pb::GraphProto::default()
    }
}

/// A value of a subgraph without a shape may have been read without one: inference finds it.
fn value_of_subgraph(value: &ValueSpec) -> pb::ValueInfoProto {
    let mut proto = value_proto(value);
    if let Some(TypeValue::TensorType(tensor)) =
        proto.r#type.as_mut().and_then(|it| it.value.as_mut())
    {
        tensor.shape = tensor.shape.take().filter(|shape| !shape.dim.is_empty());
    }
    proto
}

fn value_proto(value: &ValueSpec) -> pb::ValueInfoProto {
    let dim = |dim: &Dim| Dimension {
        value: Some(match dim {
            Dim::Fixed(extent) => DimValue::DimValue(*extent as i64),
            Dim::Symbol(name) => DimValue::DimParam(name.clone()),
        }),
        ..Dimension::default()
    };
    let tensor = pb::type_proto::Tensor {
        elem_type: data_type(value.dtype) as i32,
        shape: Some(pb::TensorShapeProto { dim: value.shape.iter().map(dim).collect() }),
    };
    pb::ValueInfoProto {
        name: value.name.clone(),
        r#type: Some(pb::TypeProto {
            value: Some(TypeValue::TensorType(tensor)),
            ..pb::TypeProto::default()
        }),
        ..pb::ValueInfoProto::default()
    }
}

fn node_proto(node: &Node) -> pb::NodeProto {
    pb::NodeProto {
        name: node.name.clone(),
        domain: node.domain.clone(),
        op_type: node.op.clone(),
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        attribute: node.attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        ..pb::NodeProto::default()
    }
}

fn attribute(name: &str, value: &Attribute) -> pb::AttributeProto {
    let mut proto = pb::AttributeProto { name: name.to_owned(), ..pb::AttributeProto::default() };
    let kind = match value {
        Attribute::Int(v) => {
            proto.i = *v;
            AttributeType::Int
        }
        Attribute::Float(v) => {
            proto.f = *v;
            AttributeType::Float
        }
        Attribute::String(v) => {
            proto.s = v.clone().into_bytes();
            AttributeType::String
        }
        Attribute::Tensor(v) => {
            proto.t = Some(tensor_proto("", v));
            AttributeType::Tensor
        }
        Attribute::Graph(v) => {
            proto.g = Some(graph_proto(v, value_of_subgraph));
            AttributeType::Graph
        }
        Attribute::Ints(v) => {
            proto.ints = v.clone();
            AttributeType::Ints
        }
        Attribute::Floats(v) => {
            proto.floats = v.clone();
            AttributeType::Floats
        }
        Attribute::Strings(v) => {
            proto.strings = v.iter().map(|s| s.clone().into_bytes()).collect();
            AttributeType::Strings
        }
    };
    proto.r#type = kind as i32;
    proto
}

fn tensor_proto(name: &str, tensor: &Tensor) -> pb::TensorProto {
    pb::TensorProto {
        name: name.to_owned(),
        data_type: data_type(tensor.dtype()) as i32,
        dims: tensor.shape().iter().map(|&extent| extent as i64).collect(),
        raw_data: tensor.bytes().to_vec(),
        ..pb::TensorProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Graph {
        let symbol = Dim::Symbol("batch".to_owned());
        Graph {
            name: "small".to_owned(),
            opsets: BTreeMap::from([(String::new(), 17)]),
            inputs: vec![ValueSpec::new("x", DType::F32, &[symbol.clone(), Dim::Fixed(2)])],
            outputs: vec![ValueSpec::new("y", DType::F32, &[symbol, Dim::Fixed(3)])],
            nodes: vec![
                Node::new("MatMul", &["x", "w"], &["h"]),
                Node::new("Softmax", &["h"], &["y"]).with("axis", Attribute::Int(-1)),
            ],
            initializers: BTreeMap::from([(
                "w".to_owned(),
                Tensor::from_f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            )]),
            metadata: BTreeMap::from([("teacher".to_owned(), "t".to_owned())]),
        }
    }

    #[test]
    fn a_graph_survives_the_file_format() {
        assert_eq!(Graph::from_onnx(&small().to_onnx()).unwrap(), small());
    }

    #[test]
    fn values_nobody_writes_are_refused_by_name() {
        let mut graph = small();
        graph.nodes[0].inputs[0] = "ghost".to_owned();
        let error = Graph::from_onnx(&graph.to_onnx()).unwrap_err().to_string();
        assert!(error.contains("MatMul `h`") && error.contains("`ghost`"), "{error}");
    }

    #[test]
    fn a_shape_that_lies_about_its_bytes_is_refused() {
        let mut model = to_model(&small());
        model.graph.as_mut().unwrap().initializer[0].dims = vec![1 << 40, 1 << 40];
        let error = Graph::from_onnx(&model.encode_to_vec()).unwrap_err().to_string();
        assert!(error.contains("initializer `w`") && error.contains("24 bytes"), "{error}");
    }

    #[test]
    fn external_data_stays_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for location in ["../secret", "/etc/passwd", ""] {
            let mut model = to_model(&small());
            let tensor = &mut model.graph.as_mut().unwrap().initializer[0];
            tensor.raw_data.clear();
            tensor.data_location = Some(pb::tensor_proto::DataLocation::External as i32);
            tensor.external_data = vec![pb::StringStringEntryProto {
                key: "location".to_owned(),
                value: location.to_owned(),
            }];
            let path = folder.path().join("m.onnx");
            std::fs::write(&path, model.encode_to_vec()).unwrap();
            let error = Graph::read_onnx(&path).unwrap_err().to_string();
            assert!(error.contains("beside the model"), "{location}: {error}");
        }
    }

    #[test]
    fn dead_nodes_and_their_constants_go() {
        let mut graph = small();
        graph.nodes.push(Node::new("Add", &["h", "bias"], &["unused"]));
        graph.initializers.insert("bias".to_owned(), Tensor::from_f32(&[3], &[0.0; 3]));
        assert_eq!(graph.remove_dead(), 1);
        assert_eq!(graph, small());
    }
}
