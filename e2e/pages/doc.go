// Package pages follows pages of the documentation word by word, so that they can't rot.
//
// A page's console blocks are taken as a session: what stands behind a prompt is typed, at the host that the prompt names or else at the
// one before, and what stands below it has to be among what is said, in that order, with "…" for anything. A command that goes on until
// somebody ends it (an agent, logs -f) runs until it has said that, or else says anything; an agent then runs on.
//
// The hosts are namespaces on one wire: each has its address, its name, its processes and an empty /var/lib, as a machine on which
// nothing was installed but the binary and Go. It takes root, and Linux.
package pages
