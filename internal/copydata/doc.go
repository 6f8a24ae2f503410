// Package copydata cuts the stream of a COPY ... FROM STDIN into rows and reads
// the shard key of each, in PostgreSQL's text and CSV formats, so that every row
// can go to its shard. (Manual: COPY, "File Formats"; the rules are those of
// PostgreSQL's copyfromparse.c.)
//
// It promises:
//   - rows are passed on byte for byte, with the newline they came with;
//   - a row's key is exactly what PostgreSQL would store in those columns, before
//     the type's own input function;
//   - however the stream is cut into pieces, the rows and the errors are the same;
//   - what PostgreSQL refuses while it looks for rows and columns is refused with
//     its SQLSTATE, words and line number;
//   - memory is bounded by the largest row allowed and the piece it came in, and
//     in steady state nothing is allocated.
//
// The stream must be in an encoding in which no byte of a multi-byte character is
// an ASCII byte: UTF8, Latin 1 and the other encodings a server can have. Whether
// the text is valid in it is for the reader of the key and for the shard to say.
package copydata
