//! What is written of an entry: values whose fields keep the order that people read them in.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

/// A value to be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// Neither a list nor an object.
    Scalar(Value),
    List(Vec<Node>),
    Object(Object),
}

/// An object to be written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object(pub Vec<(Cow<'static, str>, Node)>);

impl Object {
    /// With a field that says something. Imports take an empty text, list or object, and null, for an absent field.
    pub fn with(mut self, name: &'static str, value: impl Into<Node>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.0.push((Cow::Borrowed(name), value));
        }
        self
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        match self {
            Node::Scalar(Value::Null) => true,
            Node::Scalar(Value::String(text)) => text.trim().is_empty(),
            Node::Scalar(_) => false,
            Node::List(items) => items.is_empty(),
            Node::Object(object) => object.0.is_empty(),
        }
    }
}

/// JSON as it is: what is empty in it stays.
impl From<&Value> for Node {
    fn from(value: &Value) -> Self {
        match value {
            Value::Array(items) => Node::List(items.iter().map(Node::from).collect()),
            Value::Object(map) => Node::from(map),
            scalar => Node::Scalar(scalar.clone()),
        }
    }
}

impl From<&Map<String, Value>> for Node {
    fn from(map: &Map<String, Value>) -> Self {
        Node::Object(Object(map.iter().map(|(name, value)| (Cow::Owned(name.clone()), Node::from(value))).collect()))
    }
}

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Node::Scalar(Value::from(text))
    }
}

impl From<&String> for Node {
    fn from(text: &String) -> Self {
        Node::from(text.as_str())
    }
}

impl From<String> for Node {
    fn from(text: String) -> Self {
        Node::Scalar(Value::from(text))
    }
}

impl From<f64> for Node {
    fn from(number: f64) -> Self {
        Node::Scalar(Value::from(number))
    }
}

impl From<bool> for Node {
    fn from(flag: bool) -> Self {
        Node::Scalar(Value::from(flag))
    }
}

impl From<&[String]> for Node {
    fn from(texts: &[String]) -> Self {
        Node::List(texts.iter().map(Node::from).collect())
    }
}

impl From<Object> for Node {
    fn from(object: Object) -> Self {
        Node::Object(object)
    }
}

impl From<Vec<Object>> for Node {
    fn from(objects: Vec<Object>) -> Self {
        Node::List(objects.into_iter().map(Node::Object).collect())
    }
}

impl<T: Into<Node>> From<Option<T>> for Node {
    fn from(value: Option<T>) -> Self {
        value.map_or(Node::Scalar(Value::Null), Into::into)
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Node::Scalar(value) => value.serialize(serializer),
            Node::List(items) => items.serialize(serializer),
            Node::Object(object) => object.serialize(serializer),
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
