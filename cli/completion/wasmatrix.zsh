#compdef wasmatrix
# zsh completion for wasmatrix, by `wasmatrix completion zsh`.

_wasmatrix() {
	local line word help glued
	local -a described
	while IFS=$'\t' read -r word help; do
		case $word in
		':files wasm') _files -g '*.wasm' ;;
		':files any') _files ;;
		':files dirs') _files -/ ;;
		:glued) glued=1 ;;
		*) described+=("${word//:/\\:}${help:+:$help}") ;;
		esac
	done < <("${(Q)words[1]/#\~/$HOME}" __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)
	if ((${#described})); then
		_describe -V 'wasmatrix' described ${glued:+-S} ${glued:+''}
	fi
}

# Read from a file in $fpath, this is the function's body; read with source, it only defines it.
if [[ ${funcstack[1]} == _wasmatrix ]]; then
	_wasmatrix "$@"
else
	compdef _wasmatrix wasmatrix
fi
