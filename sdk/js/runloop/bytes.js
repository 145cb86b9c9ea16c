"use strict";
/**
 * Bytes as base64 and as text. Knows: both encodings. Does not know: where bytes come from.
 *
 * Written here because the sandbox's engine has neither Buffer nor TextDecoder.
 */

function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 4096) {
    text += String.fromCharCode.apply(null, bytes.subarray(at, at + 4096));
  }
  return btoa(text);
}

function fromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  return bytes;
}

/** UTF-8; a lone surrogate becomes U+FFFD, as in every TextEncoder. */
function toUtf8(text) {
  const bytes = [];
  for (const letter of text) {
    let code = letter.codePointAt(0);
    if (code >= 0xd800 && code <= 0xdfff) code = 0xfffd;
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else {
      bytes.push(
        0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63),
      );
    }
  }
  return Uint8Array.from(bytes);
}

/** For every lead byte: how many follow, and the range of the first that does (RFC 3629 §4). */
function sequence(lead) {
  if (lead >= 0xc2 && lead <= 0xdf) return [1, 0x80, 0xbf];
  if (lead >= 0xe0 && lead <= 0xef) return [2, lead === 0xe0 ? 0xa0 : 0x80, lead === 0xed ? 0x9f : 0xbf];
  if (lead >= 0xf0 && lead <= 0xf4) return [3, lead === 0xf0 ? 0x90 : 0x80, lead === 0xf4 ? 0x8f : 0xbf];
  return [0, 0, 0];
}

/** The text in UTF-8 bytes; what is not UTF-8 becomes U+FFFD. With `fatal` it is a TypeError. */
function fromUtf8(bytes, fatal) {
  let text = "";
  let at = 0;
  while (at < bytes.length) {
    const lead = bytes[at++];
    if (lead < 0x80) {
      text += String.fromCharCode(lead);
      continue;
    }
    let [more, low, high] = sequence(lead);
    let code = more === 0 ? -1 : lead & (0x3f >> more);
    for (; more > 0; more--) {
      const next = bytes[at];
      if (next === undefined || next < low || next > high) {
        code = -1;
        break;
      }
      code = (code << 6) | (next & 63);
      [low, high] = [0x80, 0xbf];
      at++;
    }
    if (code < 0 && fatal) throw new TypeError("these bytes are not UTF-8");
    text += code < 0 ? "\ufffd" : String.fromCodePoint(code);
  }
  return text;
}

module.exports = { fromBase64, fromUtf8, toBase64, toUtf8 };
