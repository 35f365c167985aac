module example.invalid/service

go 1.18

require (
	example.invalid/Greet v1.2.0
	example.invalid/add v0.3.0
)

require example.invalid/word/v2 v2.0.1 // indirect
