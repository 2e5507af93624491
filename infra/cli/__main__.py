from headrace.infra.cli.app import main

main()
