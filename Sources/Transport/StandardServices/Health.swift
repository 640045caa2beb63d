// StandardServices
