//! How Bitcoin's types are written inside CBOR: as the bytes of their consensus encoding.
//!
//! The derive macros of `minicbor` take one of these modules by `#[cbor(with = "...")]`: [`one`] for a value,
//! [`many`] for a list, [`maybe`] for an optional value.

use bitcoin::consensus::{Decodable, Encodable, deserialize, serialize};
use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};

fn read<T: Decodable>(bytes: &[u8]) -> Result<T, DecodeError> {
    deserialize(bytes).map_err(|_| DecodeError::message("not a value in Bitcoin's consensus encoding"))
}

/// One value.
pub(crate) mod one {
    use super::{Decodable, DecodeError, Decoder, Encodable, EncodeError, Encoder, Write, read, serialize};

    pub(crate) fn encode<T: Encodable, C, W: Write>(
        value: &T,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.bytes(&serialize(value))?.ok()
    }

    pub(crate) fn decode<T: Decodable, C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<T, DecodeError> {
        read(decoder.bytes()?)
    }
}

/// A list of values.
pub(crate) mod many {
    use super::{Decodable, DecodeError, Decoder, Encodable, EncodeError, Encoder, Write, read, serialize};

    pub(crate) fn encode<T: Encodable, C, W: Write>(
        values: &[T],
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.array(values.len() as u64)?;
        for value in values {
            encoder.bytes(&serialize(value))?;
        }
        Ok(())
    }

    pub(crate) fn decode<T: Decodable, C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<Vec<T>, DecodeError> {
        let mut values = Vec::new();
        for bytes in decoder.array_iter::<&minicbor::bytes::ByteSlice>()? {
            values.push(read(bytes?)?);
        }
        Ok(values)
    }
}

/// An optional value: a list of none or one.
pub(crate) mod maybe {
    use super::{Decodable, DecodeError, Decoder, Encodable, EncodeError, Encoder, Write, many};

    #[allow(clippy::ref_option)] // The derive macro passes a reference to the field.
    pub(crate) fn encode<T: Encodable, C, W: Write>(
        value: &Option<T>,
        encoder: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        many::encode(value.as_slice(), encoder, ctx)
    }

    pub(crate) fn decode<T: Decodable, C>(decoder: &mut Decoder<'_>, ctx: &mut C) -> Result<Option<T>, DecodeError> {
        let mut values = many::decode(decoder, ctx)?;
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(DecodeError::message("an optional value holds more than one")),
        }
    }
}
