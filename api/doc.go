// Package api is the JSON that users and scripts see: instances, members, events, the cluster's
// status and errors.
//
// Each shape is a plain struct, made from a wire message by the From function of its name. Command
// line and HTTP both print these structs, so the two cannot drift apart. Lists and maps are never
// null, a time that has not come yet is, and words are in lower case.
//
// It reads no input but a few words: what users send travels as wire messages.
package api
