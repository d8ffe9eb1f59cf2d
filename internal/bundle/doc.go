// Package bundle writes and reads update bundles, files named *.qvu.
//
// A bundle is a stream: nothing in it needs seeking, and what decides comes
// before what is large.
//
//	4 bytes      magic "QVU1"
//	u32          length of the manifest, little endian, 1 to 1 MiB
//	...          manifest, JSON
//	u16          number of signatures, little endian, 1 to 16
//	each: 32     key id, the SHA-256 of the public key (FIPS 204 encoding, 2592 bytes)
//	      4627   ML-DSA-87 signature of the manifest (FIPS 204, pure, context "quantavirt-update-1")
//	...          the files of the manifest, one after the other, each exactly its size
//
// After the last file the stream ends.
//
// What is trusted:
//
//   - One signature by a trusted key is enough; those of unknown keys do not
//     matter. A signature that names a trusted key and is wrong refuses the bundle.
//   - The manifest is not looked into before that, and no payload byte is read
//     before. Nothing of a file may be used before its SHA-256 has matched, which
//     Reader.Copy says.
//   - Trusted keys come with the image; a bundle may add and remove keys
//     (Keys.Apply), which counts from the moment its system is blessed.
//
// What a newer builder may do without leaving older readers behind:
//
//   - Unknown members of the manifest are ignored. Whatever must not be ignored
//     raises "format", and a reader that does not know the format refuses the
//     bundle with QV_ERR_VERSION.
//   - Files of unknown roles, and UKIs of other builds, are checked against their
//     sum like all others and otherwise passed over.
package bundle
