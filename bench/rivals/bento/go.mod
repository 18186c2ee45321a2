module sluice.dev/sluice/bench/rivals/bento

go 1.26.0

require github.com/warpstreamlabs/bento v1.4.1 // indirect
