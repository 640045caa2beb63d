// devbroker
